"""What is known of a speaker: emotion, gender, age, in one vocabulary for all speech corpora."""

from dataclasses import dataclass

EMOTIONS = (
    "angry",
    "calm",
    "disgusted",
    "excited",
    "fearful",
    "frustrated",
    "happy",
    "neutral",
    "sad",
    "surprised",
)


GENDERS = ("female", "male")


# AIR-Bench asks in these words (its "fourties" included), two decades at a time.
AGES = ("teens to twenties", "thirties to fourties", "fifties to sixties", "seventies to eighties")


DECADES = (
    "teens",
    "twenties",
    "thirties",
    "fourties",
    "fifties",
    "sixties",
    "seventies",
    "eighties",
)


@dataclass(frozen=True)
class SpeakerClip:
    """One utterance and what is known of its speaker: labels of EMOTIONS, GENDERS, AGES, or
    None.
    """

    corpus: str
    audio_key: str
    audio_path: str
    emotion: str | None = None
    gender: str | None = None
    age: str | None = None

    def label(self, attribute: str) -> str | None:
        """The label of `emotion`, `gender` or `age`."""
        return getattr(self, attribute)


def age_of_decade(decade: str) -> str | None:
    """`twenties` -> `teens to twenties`; None for anything that is no decade of AGES."""
    return AGES[DECADES.index(decade) // 2] if decade in DECADES else None


def age_of_years(years: int) -> str | None:
    """10 to 89 years -> the AGES they belong to."""
    return age_of_decade(DECADES[years // 10 - 1]) if 10 <= years < 90 else None
