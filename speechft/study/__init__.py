"""The study on real speech: does what the paper claims hold here (`scripts/study`, docs/study.md)?"""
