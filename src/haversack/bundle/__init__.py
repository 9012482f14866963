"""From a finished run to a folder that can be shipped, the same bytes whoever makes it: guide chapter 9.

``variant`` says which files of a run go into it and under which names, ``make`` writes them, ``changes`` compares two.
What a bundle is stands in ``base/bundle.py``; who reads one that a stranger wrote calls ``tools/trust/bundle.py``.
"""
