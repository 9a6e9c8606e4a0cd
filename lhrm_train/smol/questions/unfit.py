"""Words that a model need not learn to spell: the list that reasoning-gym draws from holds slurs and the like."""

from __future__ import annotations

import codecs

# Parts of such words, in rot13 so that nobody must read them. Harmless words that hold one are left out, too.
_PARTS = """
    nany nff onfgneq ovgpu obbo puvax pbpx pbba pevccyr phz phaa phag qntb qnexl qvpx qlxr snt shpx tnl tbbx tbl
    tevatb tlc uneybg urro ubzb vawha wnc wrj xnssve xvxr yrfo zvpx zhynggb artre arteb avtt avc beny cnxv cravf
    cvpxnavaal cvff cbea chffl dhrre encr erqfxva ergneq frk fuvg fyhg fcvp fdhnj fhvpv gvg genaal intva jrgonpx
    juber jbt jbc
"""
PARTS = tuple(codecs.decode(_PARTS, "rot13").split())


def fit_to_print(word: str) -> bool:
    """Tell whether neither `word` nor its reverse holds one of `PARTS`."""
    lower = word.lower()
    return not any(part in text for part in PARTS for text in (lower, lower[::-1]))
