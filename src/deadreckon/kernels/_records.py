"""The records of a frame section, ``.eh_frame`` or ``.debug_frame``: CIEs and FDEs to columns.

Sources: DWARF 5 section 6.4.1; Linux Standard Base 5.0 Core, "Exception Frames" (augmentations, pointer encodings).
A record whose length contradicts the format ends the reading; one whose contents do is skipped.
"""

from __future__ import annotations

import numpy as np
from numba import types

from deadreckon.kernels._jit import array, kernel
from deadreckon.kernels._leb import QUAD, WORD, fixed, sleb, uleb
from deadreckon.kernels._memory import find
from deadreckon.model.tables import SIGNAL_FRAME

__all__ = ["scan"]

# Columns of a CIE record.
CIE_OFFSET, CIE_CODE, CIE_DATA, CIE_RA, CIE_ENC, CIE_FLAGS, CIE_FROM, CIE_TO, CIE_Z, CIE_PTR = range(10)
# Columns of an FDE record.
FDE_START, FDE_END, FDE_CIE, FDE_FROM, FDE_TO = range(5)

_BYTES = array(types.uint8, readonly=True)
_I64 = types.int64


@kernel()
def _pointer(data, at, end, enc, pointer_size, section_addr, text_addr, data_addr):
    """Return (address, next offset) of a pointer in a DW_EH_PE encoding; next is -1 on error."""
    form = enc & 0x0F
    start = at
    if form == 0x01:
        raw, at = uleb(data, at, end)
        value = np.uint64(raw)
    elif form == 0x09:
        raw, at = sleb(data, at, end)
        value = np.uint64(raw)
    else:
        size = pointer_size
        if form == 0x02 or form == 0x0A:
            size = 2
        elif form == 0x03 or form == 0x0B:
            size = 4
        elif form == 0x04 or form == 0x0C:
            size = 8
        elif form != 0x00:
            return np.uint64(0), -1
        if at + size > end:
            return np.uint64(0), -1
        value = fixed(data, at, size)
        at += size
        if form & 0x08 and size < 8 and value >> np.uint64(8 * size - 1):
            value |= ~np.uint64(0) << np.uint64(8 * size)
    if at < 0:
        return np.uint64(0), -1
    application = enc & 0x70
    if application == 0x10:
        value += np.uint64(section_addr) + np.uint64(start)
    elif application == 0x20:
        value += np.uint64(text_addr)
    elif application == 0x30:
        value += np.uint64(data_addr)
    elif application != 0:
        return np.uint64(0), -1
    if pointer_size == 4:
        value &= np.uint64(0xFFFF_FFFF)
    return value, at


@kernel()
def _read_cie(data, at, end, pointer_size, row):
    """Fill a CIE's columns from its version byte on; returns False where it can't be used."""
    version = data[at]
    at += 1
    if version != 1 and version != 3 and version != 4:
        return False
    augmentation = at
    while at < end and data[at] != 0:
        at += 1
    if at >= end:
        return False
    augmentation_end = at
    at += 1
    row[CIE_PTR] = pointer_size
    if augmentation_end - augmentation == 2 and data[augmentation] == 0x65 and data[augmentation + 1] == 0x68:
        at += pointer_size  # "eh", of GCC before 3: a pointer that nothing reads any more.
    if version == 4:
        if at + 2 > end or data[at + 1] != 0:
            return False
        row[CIE_PTR] = data[at]
        at += 2
        if row[CIE_PTR] != 4 and row[CIE_PTR] != 8:
            return False
    row[CIE_CODE], at = uleb(data, at, end)
    if at < 0:
        return False
    row[CIE_DATA], at = sleb(data, at, end)
    if at < 0 or at >= end:
        return False
    if version == 1:
        row[CIE_RA] = data[at]
        at += 1
    else:
        row[CIE_RA], at = uleb(data, at, end)
        if at < 0:
            return False
    row[CIE_ENC] = 0
    row[CIE_FLAGS] = 0
    row[CIE_Z] = 0
    if augmentation < augmentation_end and data[augmentation] == 0x7A:  # z
        row[CIE_Z] = 1
        length, at = uleb(data, at, end)
        if at < 0 or length < 0 or length > end - at:
            return False
        instructions = at + length
        for i in range(augmentation + 1, augmentation_end):
            letter = data[i]
            if letter == 0x52:  # R: how FDEs write addresses
                if at >= instructions:
                    return False
                row[CIE_ENC] = data[at]
                at += 1
            elif letter == 0x50:  # P: personality routine
                if at >= instructions:
                    return False
                enc = data[at]
                _, at = _pointer(data, at + 1, instructions, enc & 0x0F, row[CIE_PTR], 0, 0, 0)
                if at < 0:
                    return False
            elif letter == 0x4C:  # L: encoding of the LSDA pointer
                at += 1
            elif letter == 0x53:  # S: signal frame
                row[CIE_FLAGS] |= SIGNAL_FRAME
            elif letter == 0x42 or letter == 0x47:  # B: pointers signed with key B; G: tagged stack
                pass
            else:
                break
        at = instructions
    elif augmentation < augmentation_end and data[augmentation] != 0x65:
        return False  # An unknown augmentation changes the layout of what follows.
    row[CIE_FROM] = at
    row[CIE_TO] = end
    return row[CIE_CODE] >= 0


@kernel(_I64(_BYTES, _I64, _I64, _I64, _I64, types.boolean, array(_I64, 2), array(_I64, 2), array(_I64)))
def scan(data, section_addr, text_addr, data_addr, pointer_size, is_eh, cies, fdes, counts):
    """Collect CIEs, then FDEs; ``counts`` receives how many of each. Returns the offset where reading ended."""
    size = len(data)
    n_cie = n_fde = 0
    reached = 0
    for collect_fdes in (False, True):
        at = 0
        while at + 4 <= size:
            record = at
            length = np.int64(fixed(data, at, WORD))
            at += 4
            wide = length == 0xFFFF_FFFF
            if wide:
                if at + 8 > size:
                    break
                length = np.int64(fixed(data, at, QUAD))
                at += 8
            if length == 0:
                # The terminator of .eh_frame; linkers leave some in the middle (crtend.o before more input).
                continue
            if length < 0 or length > size - at:
                break
            end = at + length
            id_size = 8 if wide and not is_eh else 4
            if length < id_size:
                at = end
                continue
            id_at = at
            cie_id = np.int64(fixed(data, at, id_size))
            at += id_size
            if is_eh:
                is_cie = cie_id == 0
            else:
                is_cie = cie_id == (-1 if wide else 0xFFFF_FFFF)
            if is_cie and not collect_fdes:
                if n_cie < len(cies) and at < end:
                    row = cies[n_cie]
                    row[CIE_OFFSET] = record
                    if _read_cie(data, at, end, pointer_size, row):
                        n_cie += 1
            elif not is_cie and collect_fdes:
                target = id_at - cie_id if is_eh else cie_id
                owner = find(cies[:, CIE_OFFSET], n_cie, target)
                if owner >= 0 and cies[owner, CIE_OFFSET] == target and n_fde < len(fdes):
                    cie = cies[owner]
                    enc = cie[CIE_ENC]
                    begin, at = _pointer(data, at, end, enc, cie[CIE_PTR], section_addr, text_addr, data_addr)
                    if at >= 0:
                        span, at = _pointer(data, at, end, enc & 0x0F, cie[CIE_PTR], 0, 0, 0)
                    if at >= 0 and cie[CIE_Z]:
                        length, at = uleb(data, at, end)
                        at = at + length if at >= 0 and 0 <= length <= end - at else -1
                    # Discarded functions keep an FDE at address 0 (GNU ld --gc-sections).
                    if at >= 0 and span != 0 and begin != 0 and np.int64(begin + span) > np.int64(begin) > 0:
                        fdes[n_fde, FDE_START] = np.int64(begin)
                        fdes[n_fde, FDE_END] = np.int64(begin + span)
                        fdes[n_fde, FDE_CIE] = owner
                        fdes[n_fde, FDE_FROM] = at
                        fdes[n_fde, FDE_TO] = end
                        n_fde += 1
            at = end
        reached = at
    counts[0] = n_cie
    counts[1] = n_fde
    return reached
