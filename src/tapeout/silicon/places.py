"""Where a cluster stands and where its chips come from: what the prices of power and tariffs depend on."""

import enum


class Place(enum.StrEnum):
    """Site of a cluster, which sets the price of power."""

    US = "us"
    CHINA_WEST = "china-west"
    CHINA_COAST = "china-coast"


class Origin(enum.StrEnum):
    """Origin of a chip relative to the site."""

    DOMESTIC = "domestic"
    FOREIGN = "foreign"
