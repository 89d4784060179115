"""The command line: `python -m utils COMMAND`, or `./course COMMAND`. Parses, calls, prints.

Nothing is imported before its command needs it, so that --help is quick and only what uses TensorFlow
pays for its start.
"""

import os

import click

from utils import __version__
from utils.cli import course, data, experiments, kaggle, model, pages, submission
from utils.cli.common import HELP, Commands


@click.group(cls=Commands, context_settings=HELP)
@click.version_option(package_name=None, version=__version__, prog_name="utils")
def main() -> None:
    """The herbarium course: long-tailed plant recognition, from a clone to a scored submission."""


for command in (
    course.run,
    experiments.batch,
    course.test,
    course.check,
    course.lock,
    course.lab,
    course.bench,
    data.flora,
    data.metadata,
    data.table,
    data.split,
    data.tfrecords,
    model.model,
    model.train,
    model.predict,
    pages.identify,
    pages.review,
    model.export,
    submission.submission,
    kaggle.kaggle,
):
    main.add_command(command)


if __name__ == "__main__":
    main(prog_name=os.environ.get("COURSE_PROGRAM", "python -m utils"))
