"""Words before a number that say what it is, in English and Chinese.

Every pattern ends in `$`: it is searched in a short window of text that ends where the number starts.
"""

import re

CONTEXT_NUM_CHARS = 40
"""Length of the window."""

_FILLER = (
    r"(?:[\s:：.#=,，、\"'“”「」()\[\]*_-]|\b(?:number|numbers|num|nos?|id|code|is|are|was|the|my|your|his|her|of)\b"
    r"|号码|号|號碼|號|编码|編碼|码|碼|为|為|是|的){0,8}$"
)
_OTHER = re.compile(
    r"(?:\b(?:orders?|invoices?|tracking|parcel|shipment|waybill|ticket|case|part|sku|model|serial|batch|lot|item"
    r"|isbn(?:-1[03])?|issn|ean|upc|gtin|barcode|doi|pmid|arxiv|version|ver|release|build|rfc|patent|hash|commit"
    r"|transaction|timestamp|fedex|ups|usps|dhl)\b"
    r"|订单|訂單|单号|單號|运单|運單|快递|快遞|物流|流水号?|流水號|发票|發票|型号|型號|版本|书号|書號|条码|條碼|条形码|专利|序列号|批号"
    r"|时间戳|編號|编号|工单|案号|货号)" + _FILLER,
    re.IGNORECASE,
)
_CARD = re.compile(
    r"(?:\b(?:cards?|credit|debit|visa|master ?card|amex|american express|discover|unionpay|jcb|maestro|cc|pan)\b"
    r"|银行卡|銀行卡|信用卡|借记卡|储蓄卡|金融卡|银联|銀聯|卡号|卡號|账号|帳號|账户|帳戶)"
    r"(?:[^0-9\n]|\n){0,16}$",
    re.IGNORECASE,
)
_SOCIAL_SECURITY = re.compile(
    r"(?:\bssns?\b|\bsocial[ -]security\b|社会安全号|社安号|社會安全號)[^0-9\n]{0,16}$", re.IGNORECASE
)
_CHINESE_ID = re.compile(r"(?:身份证|身份證|居民证|证件|證件|\bid(?:entity)? card\b)[^0-9\n]{0,12}$", re.IGNORECASE)
_IMEI = re.compile(r"(?:\bIMEI\b|IMEI码|串号|串號)[^0-9\n<>]{0,12}$", re.IGNORECASE)


def is_other_number(before: str) -> bool:
    """Is it an order, a tracking number, a book number, a version ...: nothing personal?"""
    return bool(_OTHER.search(before))


def is_card_number(before: str) -> bool:
    """Does the text say that a payment card follows?"""
    return bool(_CARD.search(before))


def is_social_security_number(before: str) -> bool:
    """Does the text say that a US social security number follows?"""
    return bool(_SOCIAL_SECURITY.search(before))


def is_chinese_id(before: str) -> bool:
    """Does the text say that an identity number follows?"""
    return bool(_CHINESE_ID.search(before))


def is_imei(before: str) -> bool:
    """Does the text say that the number of a mobile device follows?"""
    return bool(_IMEI.search(before))


def before(text: str, start: int) -> str:
    """The window of text that ends where a number starts."""
    return text[max(0, start - CONTEXT_NUM_CHARS) : start]
