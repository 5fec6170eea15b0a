"""What the compiled loop over a text (kernels.py) and those who call it share: kinds of characters, words, flags."""

DIGIT, LETTER, IN_WORD, IN_RUN, SEPARATOR, HEXADECIMAL, STARTS_WORD, EVENT = (1 << bit for bit in range(8))
"""Bits of an ASCII character. An underscore is a letter; digits and letters stand in words, and with a hyphen in runs.
A character that is no event needs no look: most letters."""
MIDDLE_DOT = 0xB7
"""A separator, too."""
NUM_ASCII = 128
MIN_CLUSTER_DIGITS = 7
MIN_RUN_NUM_CHARS = 20

WORDS = ("passport", "permit", "plate", "cret", "key=")
"""In small letters. A text that holds one, in whatever letters, may hold what detectors look for.

They start with rare letters, so that few characters of a text need a look.
"""
PASSPORT, PERMIT, PLATE, SECRET, KEY = range(5)
MAX_WORD_NUM_CHARS = 9
"""And a byte of 0 behind each."""

IPV4, IPV6, HAN, WIDE = (1 << bit for bit in range(4))
"""Flags of a text: three numbers between dots, two colons near each other, a Chinese character, a wide form of ASCII."""
WORD_SHIFT = 4
"""From this bit on, one for each of the words."""

FOUND_CLUSTERS, FOUND_RUNS, FOUND_IBANS, FOUND_DIGITS, FOUND_FLAGS, NUM_FOUND = range(6)
