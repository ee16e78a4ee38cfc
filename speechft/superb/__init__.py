"""SUPERB: everything that touches s3prl. Start at `speechft.superb.evaluate.evaluate`.

compat and sox_effects let s3prl 0.4.18 run on today's stack; bridge shows it our upstreams; tasks/ knows one SUPERB
task per file; fast trains s3prl's experts on stored features (store, extract); reference runs s3prl's own loop.
"""
