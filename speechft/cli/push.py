"""`speechft push`: hand a model over."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from speechft.cli.arguments import Parser, result

_EPILOG = """examples:
  speechft push runs/NAME/merged/alpha-0.25 me/hubert-speechft        a new private repository
  speechft push runs/NAME me/hubert-speechft --dry-run parcel/        only write what would be sent
  speechft push merged/alpha-0.25 me/hubert-speechft --superb runs/superb --public --license apache-2.0

FOLDER is what merge or train wrote, or a run with one merged model. Its SUPERB results, found by the hash of its
weights, go into the card and its metadata (model-index)."""


def run(words: Sequence[str]) -> int:
    parser = Parser("push", "Send a model to the Hugging Face Hub, with its card and scores.", _EPILOG)
    parser.add_argument("folder", metavar="FOLDER", help="a model's folder, or a run with one merged model")
    parser.add_argument("repo", metavar="REPO", help="OWNER/NAME, or NAME for one of your own")
    parser.add_argument("--dry-run", metavar="DIR", help="write the very files into a new folder; nothing is sent")
    parser.add_argument("--public", action="store_true", help="a new repository is private otherwise")
    parser.add_argument("--update", action="store_true", help="commit to a repository that has files already")
    parser.add_argument("--superb", metavar="DIR", nargs="+", default=[], help="results besides the run's superb/")
    parser.add_argument("--license", metavar="L", help="for the card, such as apache-2.0")
    parser.add_argument("--message", metavar="TEXT", help="of the commit")
    arguments = parser.parse_intermixed_args(list(words))

    from speechft.errors import UsageError
    from speechft.hub.push import model_folder, parcel, push

    folder = model_folder(Path(arguments.folder))
    places = [Path(one).expanduser() for one in arguments.superb]
    for one in places:
        if not one.is_dir():
            raise UsageError(f"{one} is no folder of results", "give what eval superb --out wrote")
    contents = parcel(folder, arguments.repo, places, arguments.license)
    if arguments.dry_run:
        where = str(contents.write(Path(arguments.dry_run).expanduser().resolve()))
    else:
        where = push(contents, arguments.repo, arguments.public, arguments.update, arguments.message)
    value = {
        "where": where, "sent": not arguments.dry_run, "files": sorted(contents.files),
        "scores": {f"{one.task}.{one.metric}": one.value for one in contents.scores},
    }  # fmt: skip
    result(arguments.json, value, [where])
    return 0
