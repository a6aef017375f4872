"""Ways in which a file may come back from a disk that lost power."""


def zeros(content):
    """The right length, and nothing in it: the file system noted the size before the content."""
    return bytes(len(content))


def zeroed_page(content):
    return content[: len(content) // 2] + bytes(len(content) - len(content) // 2)


def cut(content):
    return content[:-1]


def empty(content):
    return b""


def flipped_bit(content):
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]


DAMAGES = (zeros, zeroed_page, cut, empty, flipped_bit)
