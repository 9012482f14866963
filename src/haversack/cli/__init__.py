"""The command line: one file a verb, loaded when it is typed."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cyclopts import App, CycloptsError

    from haversack.base.errors import HaversackError, UsageError

PURPOSE = "haversack fits a large model into a small device and keeps it healthy there."
INTERRUPTED = 130
"""``base.errors.EXIT_INTERRUPTED``, known before anything is imported."""
COMMANDS = {
    "pack": "Fit a model into its budgets, verified and measured on the artefact itself.",
    "resolve": "Answer another budget from a finished run: measured where it can, else a forecast.",
    "verify": "Check what a finished run left, or a bundle: hashes, what files hold, golden vectors in the runtime.",
    "bundle": "Make a folder that can be shipped of a finished run.",
    "inspect": "Tell what is in a bundle: files, sizes, runtimes, quality, golden vectors, licences.",
    "diff": "Tell what an update from one bundle to another brings: files that travel, layers that changed.",
    "run": "Run a model on one input: the current release of a line, or a bundle's folder.",
    "client": "Bring a device's models up to date, go back to the release before, tell what is installed.",
    "finetune": "Teach a release new data by a small delta: only the layers that pay for its bytes change.",
    "report": "Tell what a finished run found, or write its page anew.",
    "keys": "Make the keys that releases are signed with, or put new ones in the place of old ones.",
    "publish": "Sign a bundle and put it into a repository, a folder or a bucket of S3.",
    "timestamp": "Sign a repository's timestamp anew: for cron, every 6 hours.",
    "delta": "Make a file from an older one and what changed (delta make, delta apply).",
    "parts": "List the parts on every shelf: targets, metrics, methods, preprocessing.",
    "doctor": "Tell what is installed, what each target can do here, and what adds the rest.",
}

VERBS = {
    "delta": {
        "make": "Write what makes the new file from the old one; works on model files and on any other.",
        "apply": "Write the new file from the old one and a delta, checked against the hash that the delta states.",
    }
}
"""Commands that have verbs of their own, each a function of the command's file -> what it does."""

NEEDED = {
    "job": ("what is to be packed", "a job file, module:callable or a recipe.toml", "job.py"),
    "out": ("the folder of a run", "the one that pack was given with --out", "out"),
    "bundle out": ("the folder of the bundle", "NAME-VERSION.haversack behind --out", "digits-1.3.0.haversack"),
    "run": ("the folder of a run", "the one that pack was given with --out", "out"),
    "bundle": ("a bundle", "the folder that haversack bundle made", "digits-1.3.0.haversack"),
    "old": ("the old bundle", "the folder that haversack bundle made", "digits-1.2.0.haversack"),
    "new": ("the new bundle", "the folder that haversack bundle made", "digits-1.3.0.haversack"),
    "model": ("what is to be run", "the name of a model line, or the folder of a bundle", "digits"),
    "given": ("the input", "a .npy, .npz, .png or .jpg file, or - for standard input", "input.npy"),
    "task": ("what to do on this device", "update, status, rollback, retry, enrol or key", "status"),
    "action": ("what to do with keys", "init, rotate or revoke", "init"),
    "folder": ("the folder of keys", "the one that haversack keys init made", "keys"),
    "line": ("--line", "the model line, as the bundle names it", "digits"),
    "repository": ("--repository", "a folder, or s3://BUCKET/PREFIX", "site"),
    "keys": ("--keys", "the folder that haversack keys init made", "keys"),
    "max_delta": ("--max-delta", "the most bytes that the delta may have", "300KB"),
    "budget": ("--budget", "the limits to hold it against", "size=3MB"),
}
"""What a verb cannot do without: parameter, or verb and parameter -> what it is called, what it may be, an example."""


def app() -> App:
    """Return the application; a verb's module is imported only when the verb is typed."""
    from cyclopts import App, Parameter

    from haversack import __version__

    application = App(
        name="haversack",
        help=PURPOSE,
        version=__version__,
        help_format="plaintext",
        default_parameter=Parameter(negative="", show_default=lambda value: value or None),
        suppress_keyboard_interrupt=False,  # we say what comes next
    )
    for name, line in COMMANDS.items():
        if name not in VERBS:
            application.command(f"haversack.cli.{name}:{name}", name=name, help=line)
            continue
        group = App(name=name, help=line, help_format="plaintext", default_parameter=application.default_parameter)
        for verb, text in VERBS[name].items():
            group.command(f"haversack.cli.{name}:{verb}", name=verb, help=text)
        application.command(group)
    return application


def overview() -> str:
    """Return what ``haversack --help`` says, without loading what reads a verb's own flags."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {line}" for name, line in COMMANDS.items()]
    usage = "Usage: haversack COMMAND [OPTIONS]    (haversack COMMAND --help tells them; --version)"
    return "\n".join([usage, "", PURPOSE, "", "Commands:", *lines]) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (DESIGN: 0 met, 2 usage, 3 budget missed, 4 to 7, 130, 143)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:  # whatever is imported below takes its time too
        from haversack.cli import process

        process.settle()
        with process.orderly():
            return _run(words)
    except KeyboardInterrupt as stop:
        again = ""
        if words[:1] in (["pack"], ["finetune"]) and not {"--dry-run", "--help", "-h"} & set(words):
            again = f"; the same command goes on from where it was\n  next: {shlex.join(['haversack', *words])}"
        sys.stderr.write(f"haversack: stopped{again}\n")
        return getattr(stop, "exit_code", INTERRUPTED)


def _run(words: list[str]) -> int:
    from haversack.base.errors import HaversackError, UsageError
    from haversack.cli import process

    if words in ([], ["--help"], ["-h"]):
        sys.stdout.write(overview())
        return 0
    from cyclopts import CycloptsError  # a sixth of a second that the overview above does not need

    # A lone hyphen is standard input everywhere; the parser takes it for an option.
    typed = ["/dev/stdin" if word == "-" else word for word in words]
    try:
        result = app()(typed, result_action="return_value", exit_on_error=False, print_error=False)
    except CycloptsError as error:
        verb = words[0] if words and words[0] in COMMANDS else ""
        plain = UsageError(_plainly(error), next_step=f"haversack {f'{verb} --help'.lstrip()}")
        return _failed(_misspelt(error, words) or _missing(error, words) or plain, words)
    except HaversackError as error:
        return _failed(error, words)
    except BrokenPipeError:
        sys.stderr.close()  # the reader went away (``| head``): nobody is left to tell
        return 0
    except OSError as error:
        if error.filename is not None or error.errno not in process.UNWRITTEN:
            raise
        return _failed(process.unwritten(error), words)
    return result if isinstance(result, int) else 0


def _failed(error: HaversackError, words: Sequence[str]) -> int:
    """Tell an error on standard error and, where JSON was asked for, as an object on standard output too."""
    from haversack.cli.terminal import plain, say_json

    sys.stderr.write(plain(f"haversack: {error}\n"))
    if "--json" in words:
        say_json({"error": error.data(), "exit_code": error.exit_code})
    return error.exit_code


def _plainly(error: CycloptsError) -> str:
    """Return what cannot be read on the command line, one sentence; words that are left over as they were typed."""
    from cyclopts import UnusedCliTokensError

    if isinstance(error, UnusedCliTokensError):
        left = " ".join(error.unused_tokens or ())
        return f"the command does not take {left!r}"
    return str(error)


def _misspelt(error: CycloptsError, words: Sequence[str]) -> UsageError | None:
    """Return what to say of options that the verb does not have; None where all are its own.

    A misspelt option that must be there is missing as well, and it is the misspelling that helps.
    """
    import difflib
    import inspect

    from haversack.base.errors import Fault, UsageError

    if error.target is None:
        return None
    bare = inspect.Parameter.POSITIONAL_ONLY  # they have no names that could be typed
    parameters = inspect.signature(error.target).parameters
    places = [f"--{name}" for name, parameter in parameters.items() if parameter.kind is bare]
    has = [f"--{name.rstrip('_').replace('_', '-')}" for name in parameters if f"--{name}" not in places]
    verb = " ".join(error.command_chain or words[:1])
    faults, mended, near, named = [], list(words), True, []
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name.startswith("--") and name not in (*has, "--", "--help", "--version"):
            found = [] if name in places else difflib.get_close_matches(name, has, n=1, cutoff=0.6)
            meant = f"did you mean {found[0]}?" if found else f"haversack {verb} has {', '.join(has)}"
            if not found and places:
                named.append(name)
                meant = f"haversack {verb} takes {' '.join(one[2:].upper() for one in places)} without a name"
            faults.append(Fault(name, f"there is no such option; {meant}"))
            mended[place] = f"{found[0]}{equals}{value}" if found else value if places else word
            near = near and bool(found or places)
    if not faults:
        return None
    told = [one for one in places if one in named]
    near = near and [one for one in named if one in places] == told  # else they would be in another order
    next_step = shlex.join(["haversack", *filter(None, mended)]) if near else f"haversack {verb} --help"
    if len(faults) == 1:
        return UsageError(faults[0].cause, where=faults[0].where, next_step=next_step)
    return UsageError("there are no such options", where=verb, faults=tuple(faults), next_step=next_step)


def _missing(error: CycloptsError, words: Sequence[str]) -> UsageError | None:
    """Return what to say of something that must be typed and is not, with the command as it may be; None else."""
    import inspect

    from cyclopts import MissingArgumentError

    from haversack.base.errors import UsageError

    if not isinstance(error, MissingArgumentError) or error.argument is None or error.target is None:
        return None

    def needed(wanted: str, other: tuple[str, str, str]) -> tuple[str, str, str]:
        return NEEDED.get(f"{words[0]} {wanted}", NEEDED.get(wanted, other))

    if error.keyword is not None:
        step = f"haversack {words[0]} --help    (says what it takes)"
        return UsageError("it has no value behind it", where=error.keyword, next_step=step)
    name, mended = error.argument.name.removeprefix("--"), list(words)
    if len(error.command_chain or ()) > 1:
        verbs = " ".join(error.command_chain or ())
        return UsageError(f"{error.argument.name} is missing", where=verbs, next_step=f"haversack {verbs} --help")
    for place, (wanted, parameter) in enumerate(inspect.signature(error.target).parameters.items(), 1):
        example = needed(wanted, ("", "", wanted.upper()))[2]
        if parameter.default is not parameter.empty or any(word.partition("=")[0] == f"--{wanted}" for word in words):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY:
            mended += [f"--{wanted.replace('_', '-')}", example]
        elif wanted == name:
            mended.insert(place, example)
    what, may_be, _ = needed(name, (error.argument.name, "it must be there", ""))
    return UsageError(f"{what} is missing: {may_be}", where=words[0], next_step=shlex.join(["haversack", *mended]))
