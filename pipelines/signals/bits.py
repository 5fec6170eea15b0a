"""Bits and sizes that the compiled loops (kernels.py) and those who call them share."""

# What a code point is; `characters.class_table` says which are.
SPACE = 1  # str.isspace
BREAK = 1 << 1  # str.splitlines ends a line here
ALPHA = 1 << 2  # a letter to spaCy, which has no more than these scripts
LOWER = 1 << 3  # of these, not upper case; letters without case are both
UPPER = 1 << 4
DIGIT = 1 << 5  # 0 to 9
PREFIX = 1 << 6  # cut off at the start of a word
SUFFIX = 1 << 7  # cut off at its end
ICON = 1 << 8  # cut out within it
QUOTE = 1 << 9
STOPPABLE = 1 << 10  # a full stop behind it is cut off
LABEL = 1 << 11  # may stand in a host name
PLAIN = 1 << 12  # no rule says anything about it
MARK = 1 << 13  # datatrove's punctuation
LETTER = 1 << 14  # str.isalpha
PUNCTUATION = 1 << 15  # Unicode category P
SENTENCE_END = 1 << 16  # to spaCy's sentencizer
TERMINAL = 1 << 17  # datatrove's terminal punctuation
WORD = 1 << 18  # letters, marks and digits of scripts with spaces between words
CHARACTER = 1 << 19  # those of a script without
JOINER = 1 << 20  # part of a word between two WORDs
BLANK = 1 << 21  # SPACE or a control character
OUR_TERMINAL = 1 << 22
CLOSER = 1 << 23
OUR_QUOTE = 1 << 24
WIDE_END = 1 << 25  # ends a sentence without white space behind it
BULLET = 1 << 26

LAST_CODE = 0x20000
"""Code points above are read as this one, a Han character: nearly all assigned ones are."""

# What a word is.
IS_MARK = 1
HAS_LETTER = 2
HAS_GAP = 4  # white space stands right before it
ENDS_SENTENCE = 8
IS_PUNCTUATION = 16

# What a search in Python found in a line.
LOREM_IPSUM = 1
JAVASCRIPT = 2
POLICY = 4
REFUSED = 8

# What a folded character is, above the 21 bits of its code point; 0 alone is a space.
FOLDED_CODE = (1 << 21) - 1
FOLDED_CHARACTER = 1 << 21  # of a script without spaces between words
FOLDED_DIGIT = 1 << 22
FOLDED_SEVERAL = 1 << 23  # the code point is an index: of a length and so many folded characters
FOLDED_NONE = 1 << 24
FOLDED_UNSAFE = 1 << 25  # may join with its neighbours, which a table cannot say
FOLDED_LOOK_ALIKE = 1 << 26  # a letter of another alphabet that looks like a Latin one
NUM_FOLDED_CODES = 0x30000
END_OF_HAN = 0x323B0

BASE = 0x9E3779B97F4A7C15  # of polynomial hashes: odd, so that no power of it is 0 modulo 2^64
SHINGLE_NUM_TOKENS = 5
SHINGLE_BUFFER = 1024  # 4 kB stay in the first-level cache
MAX_SPECIAL_NUM_CHARS = 16
NUM_FILTER_CODES = 128
NUM_SPECIAL_PARTS = 3
MAX_PATTERN_NUM_TOKENS = 10
