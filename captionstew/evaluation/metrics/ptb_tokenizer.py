"""Penn-Treebank words of a caption, as the COCO caption metrics count them, without Java.

The COCO metrics split captions with Stanford's Penn-Treebank tokeniser, write them in lower case
and drop punctuation. These rules give the same words for captions in English; where they may differ
is in what captions rarely hold (three or more hyphens, unusual abbreviations, several full stops
inside a word).
"""

import re

# Dropped after splitting. Brackets are not: the COCO metrics look for their names in upper case,
# after lower-casing.
PUNCTUATION = frozenset({"'", '"', "''", "``", "`", ".", "?", "!", ",", ":", ";", "-", "--", "..."})
BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
# Words written as one that the Penn Treebank counts as two.
JOINED = {
    "cannot": "can not",
    "gonna": "gon na",
    "gotta": "got ta",
    "wanna": "wan na",
    "gimme": "gim me",
    "lemme": "lem me",
}
ABBREVIATIONS = ["Mr", "Mrs", "Ms", "Dr", "Prof", "Sr", "Jr", "St", "vs", "etc"]
NORMALISED = str.maketrans(
    {"‘": "`", "’": "'", "“": '"', "”": '"', "—": " -- ", "–": " -- ", "…": " ... "}
)

_WORD = r"\w+(?:-\w+)*"
_TOKEN = re.compile(
    rf"""
      </?[A-Za-z][^<>\s]*>                            # a tag
    | (?:https?://|www\.)[^\s<>"]*[^\s<>".,;:!?)]     # an address
    | [\w.+-]+@[\w-]+(?:\.[\w-]+)+                    # a mail address
    | '\d\ds\b | '[nN]'(?!\w)                         # '60s, rock 'n' roll
    | [oO]'[cC]lock\b | [mM]a'am\b | [yY]'all\b
    | (?:[A-Za-z]\.){{2,}}                            # u.s.
    | \b(?:{"|".join(ABBREVIATIONS)})\.(?=\s+\S)      # mr. smith, not a last full stop
    | [A-Z](?:&[A-Z])+\b | [CcFf]\#(?!\w)             # r&b; c# and f#, but "g #"
    | (?<![\w.])[-+]?\d+(?:[.,:/]\d+)+                # 1,000.5  3:00  4/4
    | {_WORD}(?:/{_WORD}){{1,2}}                      # hip-hop/rap
    | [\w-]*?\w(?=[nN]'[tT]\b) | [nN]'[tT]\b          # do n't
    | '(?:[sSmMdD]|[rR][eE]|[vV][eE]|[lL][lL])\b      # speaker 's
    | {_WORD}
    | [?!]{{2,}} | \.{{2,}} | -+ | \S
    """,
    re.VERBOSE,
)


def ptb_tokenize(caption: str) -> str:
    """Words of a caption in lower case, without punctuation, joined by single blanks."""
    # Stanford's tokeniser loses what Java writes as two characters, such as emoji.
    text = "".join(char for char in caption if ord(char) <= 0xFFFF).translate(NORMALISED)
    tokens = [token.lower() for token in _TOKEN.findall(text)]
    return " ".join(
        JOINED.get(token, BRACKETS.get(token, token))
        for token in tokens
        if token not in PUNCTUATION
    )
