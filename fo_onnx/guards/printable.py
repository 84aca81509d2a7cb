"""Makes text of others safe to print: names, ids, labels, metadata and paths come from files that anybody may write.

A terminal obeys escape sequences: text that is printed as it is could clear the screen, set the title, turn the
direction of writing (Unicode Technical Report 36, section 2.11), or add lines that look like the program's own.
"""

from __future__ import annotations

import re
import unicodedata

_SEQUENCE = re.compile(r"\x1b([\[\]])")
_OUTSIDE_ASCII = re.compile(r"[^\x00-\x7e]")


def escaped(text: object, *, keep_newlines: bool = False) -> str:
    r"""Return a text in which each character that is not printed as itself is written as `repr` does: ``\x1b``, ``\n``.

    These are control and format characters, separators of lines and paragraphs, private, unassigned and lone surrogate
    code points. After an escape character the bracket that begins a sequence is escaped with it, so that nothing
    remains that reads as one. Spaces of every width stay, and so do backslashes: text that is escaped already stays as
    it is.

    Args:
        text: The text, or what ``str`` makes one of.
        keep_newlines: Whether ``\n`` stays, for text that was laid out in lines.

    Example:
        >>> print(escaped("cat" + chr(27) + "[2J" + chr(10)))
        cat\x1b\x5b2J\n
    """
    text = str(text)
    if text.isprintable():
        return text
    # The bracket first, while the escape character before it is still there.
    text = _SEQUENCE.sub(lambda match: f"\x1b\\x{ord(match[1]):02x}", text)
    return "".join(c if _is_plain(c) or (keep_newlines and c == "\n") else repr(c)[1:-1] for c in text)


def escaped_json(document: str) -> str:
    r"""Return a JSON document in which the same characters are written as ``\uXXXX``. Its values stay what they are."""
    # Control characters are escaped in valid JSON already, but for the newlines between its parts.
    return _OUTSIDE_ASCII.sub(lambda match: match[0] if _is_plain(match[0]) else _json_escape(match[0]), document)


def _is_plain(character: str) -> bool:
    return character.isprintable() or unicodedata.category(character) == "Zs"


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
