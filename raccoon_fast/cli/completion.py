"""`raccoon-fast completion`: generates completion scripts for shells from the command's own parsers.

All three scripts work alike: they find the subcommand of the line, check whether the previous word is an option with a
value, and offer the possible words.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import TYPE_CHECKING, NamedTuple

from raccoon_fast.cli.exits import Exit

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["run"]

# Metavars that stand for a file name.
_FILES = ("FILE", "PATH", "PEM", "SVG", "null|FILE")


def run(arguments: argparse.Namespace) -> int:
    """Writes the script for a shell to stdout, and returns the exit code."""
    from raccoon_fast.cli.arguments import make_parser

    write = {"bash": _bash, "zsh": _zsh, "fish": _fish}[arguments.shell]
    sys.stdout.write("\n".join(write(list(_levels(make_parser())))) + "\n")
    return Exit.OK


class _Word(NamedTuple):
    """An option or a subcommand.

    Attributes:
        names: The names as typed.
        help: One line.
        takes: "" for no value, "file", "choice", or "value" for any other value.
        choices: The values of a "choice".
    """

    names: list[str]
    help: str
    takes: str = ""
    choices: tuple[str, ...] = ()


class _Level(NamedTuple):
    """The words that may follow a subcommand.

    Attributes:
        path: The subcommand's words, each after a space; "" for the command itself.
        commands: Its subcommands.
        options: Its options.
        arguments: Its other arguments.
    """

    path: str
    commands: list[_Word]
    options: list[_Word]
    arguments: list[_Word]

    @property
    def takes_files(self) -> bool:
        """Whether an argument is a file name."""
        return any(argument.takes == "file" for argument in self.arguments)


def _levels(parser: argparse.ArgumentParser, path: str = "") -> Iterator[_Level]:
    level = _Level(path, [], [], [])
    formatter = argparse.HelpFormatter(parser.prog)
    below: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way to be asked
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            below = action.choices
            level.commands.extend(_Word([one.dest], one.help or "") for one in action._choices_actions)  # noqa: SLF001
        elif action.help is not argparse.SUPPRESS:
            text = formatter._expand_help(action) if action.help else ""  # noqa: SLF001
            words = level.options if action.option_strings else level.arguments
            choices = tuple(map(str, action.choices or ()))
            words.append(_Word([*action.option_strings], text, _takes(action), choices))
    yield level
    for name, subparser in below.items():
        yield from _levels(subparser, f"{path} {name}")


def _takes(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    if action.choices:
        return "choice"
    return "file" if action.metavar in _FILES else "value"


def _walk(levels: list[_Level], words: str) -> list[str]:
    """Statements, the same for bash and zsh, that set `at` to the level of the line."""
    paths = "|".join(f'"{level.path}"' for level in levels if level.path)
    return [
        '    local at="" word',
        f'    for word in "{words}"; do',
        f'        case "$at $word" in {paths}) at="$at $word" ;; esac',
        "    done",
    ]


def _values(levels: list[_Level]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Options that take a value: a `case` pattern of level and option, the kind of value, and the choices."""
    for level in levels:
        alike: dict[tuple[str, tuple[str, ...]], list[str]] = {}
        for option in level.options:
            if option.takes:
                alike.setdefault((option.takes, option.choices), []).extend(option.names)
        for (takes, choices), names in alike.items():
            yield "|".join(f'"{level.path} {name}"' for name in names), takes, choices


def _bash(levels: list[_Level]) -> Iterator[str]:
    yield '# raccoon-fast completion for bash; in ~/.bashrc: eval "$(raccoon-fast completion bash)"'
    yield "_raccoon_fast() {"
    yield from _walk(levels, "${COMP_WORDS[@]:1:COMP_CWORD-1}")
    yield '    local current="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" offered="" files=""'
    yield '    case "$at $before" in'
    for pattern, takes, choices in _values(levels):
        offer = {"file": "files=1", "choice": f"offered={shlex.quote(' '.join(choices))}", "value": ":"}[takes]
        yield f"        {pattern}) {offer} ;;"
    yield '        *) case "$at" in'
    for level in levels:
        words = [name for word in (*level.commands, *level.options) for name in word.names]
        words += [choice for argument in level.arguments for choice in argument.choices]
        files = ' [[ "$current" == -* ]] || files=1' if level.takes_files else ""
        yield f'            "{level.path}") offered={shlex.quote(" ".join(words))};{files} ;;'
    yield "        esac ;;"
    yield "    esac"
    yield '    if [[ "$files" ]]; then'
    yield "        compopt -o filenames 2>/dev/null"
    yield "        local IFS=$'\\n'"
    yield '        COMPREPLY=($(compgen -f -- "$current"))'
    yield "    else"
    yield '        COMPREPLY=($(compgen -W "$offered" -- "$current"))'
    yield "    fi"
    yield "}"
    yield "complete -F _raccoon_fast raccoon-fast"


def _zsh(levels: list[_Level]) -> Iterator[str]:
    yield "#compdef raccoon-fast"
    yield '# raccoon-fast completion for zsh; in ~/.zshrc, after compinit: eval "$(raccoon-fast completion zsh)"'
    yield "_raccoon_fast() {"
    yield from _walk(levels, "${(@)words[2,CURRENT-1]}")
    yield "    local -a offered"
    yield '    case "$at ${words[CURRENT-1]}" in'
    for pattern, takes, choices in _values(levels):
        offer = {"file": "_files", "choice": f"compadd -- {shlex.join(choices)}", "value": "_message value"}[takes]
        yield f"        {pattern}) {offer}; return ;;"
    yield "    esac"
    yield '    case "$at" in'
    for level in levels:
        described = [
            shlex.quote(f"{name}:{word.help}") for word in (*level.commands, *level.options) for name in word.names
        ]
        described += [choice for argument in level.arguments for choice in argument.choices]
        files = " [[ ${words[CURRENT]} == -* ]] || { _files; return }" if level.takes_files else ""
        yield f'        "{level.path}") offered=({" ".join(described)});{files} ;;'
    yield "    esac"
    yield "    _describe raccoon-fast offered"
    yield "}"
    yield "compdef _raccoon_fast raccoon-fast"


def _fish(levels: list[_Level]) -> Iterator[str]:
    yield "# raccoon-fast completion for fish; in config.fish: raccoon-fast completion fish | source"
    yield "function __raccoon_fast_at"
    yield "    set -l at ''"
    yield "    for word in (commandline -opc)[2..-1]"
    yield '        switch "$at $word"'
    yield f"            case {' '.join(_fish_quote(level.path) for level in levels if level.path)}"
    yield '                set at "$at $word"'
    yield "        end"
    yield "    end"
    yield '    test "$at" = "$argv[1]"'
    yield "end"
    yield "complete -c raccoon-fast -f"
    for level in levels:
        start = f"complete -c raccoon-fast -n {_fish_quote(f'__raccoon_fast_at {_fish_quote(level.path)}')}"
        for command in level.commands:
            yield f"{start} -a {command.names[0]} -d {_fish_quote(command.help)}"
        for option in level.options:
            names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
            value = {
                "": "",
                "file": " -r -F",
                "choice": f" -x -a {_fish_quote(' '.join(option.choices))}",
                "value": " -x",
            }
            yield f"{start} {names}{value[option.takes]} -d {_fish_quote(option.help)}"
        if level.takes_files:
            yield f"{start} -F"
        for argument in level.arguments:
            if argument.choices:
                yield f"{start} -a {_fish_quote(' '.join(argument.choices))}"


def _fish_quote(text: str) -> str:
    quoted = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{quoted}'"
