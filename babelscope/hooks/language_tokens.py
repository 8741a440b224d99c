"""The tokens by which translation models name languages: `__sw__`, `sw_KE`, `swh_Latn`."""

import re
from collections.abc import Iterator, Sequence

from transformers import PreTrainedTokenizerBase

from babelscope.datasets.translation import direction_of
from babelscope.errors import BabelScopeError

# ISO 639-1 code and the ISO 639-3 code of the same language in FLORES-200 and NLLB; ISO 639-3 has its own codes for
# macrolanguages (`ara`, `swa`, `zho`), and these models have a token for one of their members. A script is given
# where they write one language in several.
_CODES = """
af:afr ak:aka am:amh ar:arb as:asm ast:ast ay:ayr az:azj ba:bak be:bel bg:bul bm:bam bn:ben bo:bod bs:bos ca:cat
cs:ces cy:cym da:dan de:deu dz:dzo ee:ewe el:ell en:eng eo:epo es:spa et:est eu:eus fa:pes ff:fuv fi:fin fj:fij
fo:fao fr:fra ga:gle gd:gla gl:glg gn:grn gu:guj ha:hau he:heb hi:hin hr:hrv ht:hat hu:hun hy:hye id:ind ig:ibo
is:isl it:ita ja:jpn jv:jav ka:kat kg:kon ki:kik kk:kaz km:khm kn:kan ko:kor ku:kmr ky:kir lb:ltz lg:lug li:lim
ln:lin lo:lao lt:lit lv:lvs mg:plt mi:mri mk:mkd ml:mal mn:khk mr:mar ms:zsm mt:mlt my:mya nb:nob ne:npi nl:nld
nn:nno no:nob ny:nya oc:oci om:gaz or:ory pa:pan pl:pol ps:pbt pt:por qu:quy rn:run ro:ron ru:rus rw:kin sa:san
sc:srd sd:snd sg:sag si:sin sk:slk sl:slv sm:smo sn:sna so:som sq:als sr:srp ss:ssw st:sot su:sun sv:swe sw:swh
ta:tam te:tel tg:tgk th:tha ti:tir tk:tuk tl:tgl tn:tsn tr:tur ts:tso tt:tat tw:twi ug:uig uk:ukr ur:urd uz:uzn
vi:vie wo:wol xh:xho yi:ydd yo:yor yue:yue zh:zho_Hans zu:zul
"""
_ISO_639_3 = dict(pair.split(":") for pair in _CODES.split())

_SPELLED = re.compile(r"__[a-z]{2,3}([-_]\w+)?__|[a-z]{2,3}_([A-Z]{2}|[A-Z][a-z]{3})")


def source_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Id of the token by which a tokenizer names a language beside every text; None where it names none.

    Such a tokenizer names one language, mostly English, until it is told another.
    """
    ids: list[int] = tokenizer("", verbose=False)["input_ids"]
    roles = {getattr(tokenizer, name) for name in tokenizer.SPECIAL_TOKENS_ATTRIBUTES if name.endswith("_token")}
    named = [i for i, token in _spelled(tokenizer, ids) if _SPELLED.fullmatch(token) and token not in roles]
    return named[0] if named else None


def source_tokens(tokenizer: PreTrainedTokenizerBase, languages: Sequence[str]) -> tuple[str, ...]:
    """The token that names each language beside its texts; empty where the tokenizer names none.

    Raises
    ------
    BabelScopeError
        As `language_token`.
    """
    if source_token(tokenizer) is None:
        return ()
    return tuple(token for _, token in _spelled(tokenizer, language_ids(tokenizer, languages)))


def language_ids(tokenizer: PreTrainedTokenizerBase, languages: Sequence[str], *, written: bool = False) -> list[int]:
    """Id of the token that names each of some languages, which may repeat.

    Of a direction of translation (`en-to-de`) it is the language that is read, or the one that is to be written.

    Raises
    ------
    BabelScopeError
        As `language_token`.
    """
    spoken = {code: (direction_of(code) or (code,))[-1 if written else 0] for code in languages}
    named = {code: language_token(tokenizer, language) for code, language in spoken.items()}
    return [named[language] for language in languages]


def language_token(tokenizer: PreTrainedTokenizerBase, language: str) -> int:
    """Id of the token that names a language.

    Parameters
    ----------
    language : str
        As prompts name it (`sw`, `pt-BR`, `zh-Hant`), or the code of the model itself (`swh_Latn`).

    Raises
    ------
    BabelScopeError
        If there is no such token, or more than one.
    """
    for vocabulary in _vocabularies(tokenizer):
        for pattern in _spellings(language):
            named = re.compile(pattern)
            found = sorted(token for token in vocabulary if named.fullmatch(token))
            if len(found) > 1:
                raise BabelScopeError(
                    f"the tokenizer has several tokens for the language {language!r}: {', '.join(found)}",
                    f"name one of them as the language of the prompts, or add the script: {language}-{found[0][-4:]}",
                )
            if found:
                return vocabulary[found[0]]
    raise BabelScopeError(
        f"the tokenizer has no token for the language {language!r}",
        "leave the language out (--languages), or write the model's own code in the prompts; "
        "where only the decoder asks for it, --decoder start will do",
    )


def _vocabularies(tokenizer: PreTrainedTokenizerBase) -> Iterator[dict[str, int]]:
    """Where languages may be found: the whole vocabulary last, since that of NLLB takes half a second to read."""
    yield getattr(tokenizer, "lang_token_to_id", {})  # of M2M100, in no vocabulary
    yield tokenizer.get_added_vocab()
    yield tokenizer.get_vocab()


def _spelled(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[tuple[int, str]]:
    return list(zip(ids, tokenizer.convert_ids_to_tokens(list(ids)), strict=True))


def _spellings(language: str) -> Iterator[str]:
    """Patterns of tokens that may name a language, the most exact first."""
    code, *more = re.split("[-_]", language)
    script = next((part.title() for part in more if len(part) == 4), "")
    region = next((part.upper() for part in more if len(part) == 2), "")
    yield f"__{re.escape(language)}__"
    yield f"__{code}__"
    if region:
        yield f"{code}_{region}"
    yield f"{code}_[A-Z]{{2}}"
    known = _ISO_639_3.get(code, code).split("_")
    if len(known[0]) == 3:
        yield f"__{known[0]}__"
        yield f"{known[0]}_{script or (known[1] if len(known) == 2 else '[A-Z][a-z]{3}')}"
