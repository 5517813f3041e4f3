"""Names of samples and fields in tar shards: keys without dots, fields in lower case, no two alike."""

from collections.abc import Collection, Sequence

__all__ = ["KeyMaker", "image_positions", "output_fields", "plain_key"]


def plain_key(path: str) -> str:
    """Make the key of a sample from the path of a file: no extension, and no dots in the base name.

    Args:
        path: path with slashes; bytes that are not UTF-8 are surrogate escapes, and stay.

    Example:
        >>> plain_key("birds/IMG.v2.jpg")
        'birds/IMG_v2'
    """
    folder, slash, base = path.rpartition("/")
    return folder + slash + _split_base(base)[0]


def _split_base(base: str) -> tuple[str, str]:
    """Split a base name into a stem without dots and an extension, which is "" for a hidden file without another dot."""
    stem, dot, extension = base.rpartition(".")
    if not dot or not stem:
        stem, extension = base, ""
    return stem.replace(".", "_"), extension.replace(".", "_")


class _Folder:
    """Keys of one folder that a later file could have, too."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.used: set[str] = set()
        self.first, self.first_used = "", False

    def key(self, base: str, *, keep_all: bool) -> str:
        """Give a file a base name that no other file of the folder has."""
        stem, extension = _split_base(base)
        first = base.partition(".")[0]
        if first != self.first:
            self.first, self.first_used = first, False
        key, number = stem, 1
        while key in self.used or (key == first and self.first_used):
            number += 1
            key = f"{stem}_{extension}" if number == 2 else f"{stem}_{extension}_{number - 1}"
        if key == first and "." in base and not keep_all:
            self.first_used = True
        else:
            self.used.add(key)
        return key


class KeyMaker:
    """Keys of samples, one for each file of a listing, each once.

    A key that is taken gets the extension, then a number: ``a.jpg``, ``a.png``, ``b/a.jpg`` become ``a``, ``a_png``,
    ``b/a``. A sorted listing needs little memory. Files of a folder that share the name up to the first dot lie together,
    and a name that was made here sorts before every file that could want it, so that only made names are remembered,
    until the listing leaves their folder.

    Args:
        in_order: paths come sorted by Unicode code points, as `ohmq.storage.store.Store.list` gives them; False: in any
            order, and all keys are remembered.

    Raises:
        ValueError: paths that come out of order.

    Example:
        >>> keys = KeyMaker()
        >>> [keys(path) for path in ("a.b.jpg", "a.jpg", "a.png", "a_b.jpg")]
        ['a_b', 'a', 'a_png', 'a_b_jpg']
    """

    def __init__(self, *, in_order: bool = True) -> None:
        self.in_order = in_order
        self._last = ""
        self._open: list[_Folder] = []
        self._folders: dict[str, _Folder] = {}

    def __call__(self, path: str) -> str:
        """Return the key of the next file."""
        folder, slash, base = path.rpartition("/")
        if not self.in_order:
            keys = self._folders.setdefault(folder, _Folder(folder))
            return folder + slash + keys.key(base, keep_all=True)
        if path < self._last:
            raise ValueError(f"{path!r} comes after {self._last!r}: the paths are not sorted")
        self._last = path
        while self._open and not (folder + slash).startswith(self._open[-1].name):
            self._open.pop()
        if not self._open or self._open[-1].name != folder + slash:
            self._open.append(_Folder(folder + slash))
        return folder + slash + self._open[-1].key(base, keep_all=False)


def image_positions(fields: Sequence[str], extensions: Collection[str]) -> list[int]:
    """Find the images of a sample by the last part of their fields.

    Args:
        fields: fields of the sample's members, in any case.
        extensions: extensions of images, in lower case and with their dot, such as ``IMAGE_EXTENSIONS``.

    Example:
        >>> image_positions(["left.JPG", "json", "jpg"], (".jpg",))
        [0, 2]
    """
    return [
        position for position, field in enumerate(fields) if "." + field.rpartition(".")[2].lower() in set(extensions)
    ]


def output_fields(
    fields: Sequence[str], extension: str, *, extensions: Collection[str] = (), taken: Collection[str] = ()
) -> list[str]:
    """Name the fields of the files that are made from the images of one sample, in lower case.

    The extension replaces that of the source. Where two images would then have one name, or a member that is passed on
    has it already, the extension is added to that of the source.

    Args:
        fields: fields of the images.
        extension: of the results, without a dot, such as "ohm" or "png".
        extensions: extensions of images, with their dot: one before a final ``ohm`` is replaced, too.
        taken: fields of members that are passed on.

    Raises:
        ValueError: no name is free.

    Example:
        >>> output_fields(["left.jpg", "RIGHT.JPG"], "ohm"), output_fields(["jpg", "png"], "ohm")
        (['left.ohm', 'right.ohm'], ['jpg.ohm', 'png.ohm'])
        >>> output_fields(["jpg.ohm"], "png", extensions=(".jpg", ".png"))
        ['png']
    """
    lower = [field.lower() for field in fields]
    short = [_replaced(field, extension, extensions) for field in lower]
    taken_lower = {field.lower() for field in taken}
    names = [
        _added(full, extension) if short.count(name) > 1 or name in taken_lower else name
        for full, name in zip(lower, short, strict=True)
    ]
    if len({*names} | taken_lower) < len(names) + len(taken_lower):
        raise ValueError(f"no names for the results of {', '.join(fields)} beside {', '.join(taken)}")
    return names


def _replaced(field: str, extension: str, extensions: Collection[str]) -> str:
    parts = field.split(".")
    last = parts.pop()
    if last == "ohm" and parts and "." + parts[-1] in extensions:
        parts.pop()
    return ".".join([*parts, extension])


def _added(field: str, extension: str) -> str:
    stem = field.removesuffix(".ohm")
    return stem if stem.rpartition(".")[2] == extension else f"{stem}.{extension}"
