"""Addresses and keys of crypto currencies: Base58Check (Bitcoin and kin, Tron), Bech32 (BIP 173, 350), Ethereum."""

import hashlib
import re

from pipelines.pii.runs import Spans

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE58_RUN = re.compile("[1-9A-HJ-NP-Za-km-z]+")
_BASE58_NUM_CHARS = frozenset((*range(26, 36), 51, 52))
"""Of addresses, and of private keys in wallet import format."""
_CHECKSUM_NUM_BYTES = 4
_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_BECH32_RUN = re.compile("((?:bc|tb|ltc)1)([02-9ac-hj-np-z]{11,71})")
_BECH32_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_BECH32_CONSTANTS = (1, 0x2BC830A3)  # BIP 173, BIP 350
_ETHEREUM = re.compile("0x[0-9A-Fa-f]{40}")
_ETHEREUM_MIN_DISTINCT = 8
_MAX_NUM_CHARS = 90  # BIP 173
_PIECE = re.compile("[0-9A-Za-z]+")


def find_wallets(text: str, runs: Spans) -> list[tuple[int, int]]:
    """Spans of addresses with a right checksum, and of 0x with 40 hexadecimal digits that are no filler."""
    return [piece.span() for start, end in runs for piece in _PIECE.finditer(text, start, end) if _is_wallet(piece)]


def _is_wallet(piece: re.Match[str]) -> bool:
    num_chars = piece.end() - piece.start()
    if num_chars > _MAX_NUM_CHARS:
        return False
    word = piece[0]
    if _ETHEREUM.fullmatch(word):
        return len(set(word[2:].lower())) >= _ETHEREUM_MIN_DISTINCT
    if num_chars in _BASE58_NUM_CHARS and _BASE58_RUN.fullmatch(word) and _is_base58check(word):
        return True
    return word in {word.lower(), word.upper()} and _is_bech32(word.lower())


def _is_base58check(word: str) -> bool:
    number = 0
    for char in word:
        number = number * 58 + _BASE58.index(char)
    num_zeros = len(word) - len(word.lstrip("1"))
    data = bytes(num_zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")
    payload, checksum = data[:-_CHECKSUM_NUM_BYTES], data[-_CHECKSUM_NUM_BYTES:]
    return hashlib.sha256(hashlib.sha256(payload).digest()).digest()[:_CHECKSUM_NUM_BYTES] == checksum


def _is_bech32(word: str) -> bool:
    match = _BECH32_RUN.fullmatch(word)
    if match is None:
        return False
    prefix = [ord(char) for char in match[1][:-1]]
    values = [char >> 5 for char in prefix] + [0] + [char & 31 for char in prefix]
    checksum = 1
    for value in (*values, *map(_BECH32.index, match[2])):
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_BECH32_GENERATOR):
            checksum ^= generator if top >> bit & 1 else 0
    return checksum in _BECH32_CONSTANTS
