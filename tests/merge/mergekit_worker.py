"""Run by the python of an environment that has mergekit: merges as the JSON file says, one folder a merge."""

import json
import sys


def main(path):
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions
    from transformers import HubertModel

    # mergekit asks every model for its vocabulary, and a HubertModel answers that it cannot say.
    HubertModel.get_input_embeddings = lambda model: None
    with open(path) as file:  # noqa: PTH123
        jobs = json.load(file)
    for out, config in jobs.items():
        run_merge(MergeConfiguration.model_validate(config), out, MergeOptions(copy_tokenizer=False, quiet=True))
    print("done")


if __name__ == "__main__":
    main(sys.argv[1])
