#!/usr/bin/env python3
"""Verifies an audit log of agent-loop by the standard library alone, as docs/audit-format.md describes it.

    verify.py DIR [ANCHORS]   exit code 0 intact and anchored by files below ANCHORS, 1 intact, 2 with declared gaps,
                              3 tampered with, 4 unreadable
    verify.py -               reads directories from standard input and prints a code for each
Keys are those of the log itself: compare keys/epoch-1.pub with one that you got elsewhere. Not checked: --account.
Segments that are compressed need the command zstd; without it they are unreadable."""
import base64, hashlib, json, os, re, shutil, subprocess, sys

P, L = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493      # RFC 8032: the field and the order of Ed25519
D = -121665 * pow(121666, -1, P) % P

def add(a, b):                                                            # extended coordinates: X, Y, Z, T = XY / Z
    k, m = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    t, z = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    e, f, g, h = m - k, z - t, z + t, m + k
    return e * f % P, g * h % P, f * g % P, e * h % P

def times(n, point):
    total = (0, 1, 1, 0)
    while n:
        total, point, n = add(total, point) if n & 1 else total, add(point, point), n >> 1
    return total

def point(text):
    y, sign = int.from_bytes(text, "little") & (1 << 255) - 1, text[31] >> 7
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    x = x if x * x % P == square else x * pow(2, (P - 1) // 4, P) % P
    assert y < P and x * x % P == square and (x or not sign), "no point"
    return (P - x if x & 1 != sign else x, y, 1, (P - x if x & 1 != sign else x) * y % P)

BASE = point((4 * pow(5, -1, P) % P).to_bytes(32, "little"))
SEEN = {}

def signed(key, text, signature):
    if (key, text, signature) not in SEEN:
        r, s = signature[:32], int.from_bytes(signature[32:], "little")
        h = int.from_bytes(hashlib.sha512(r + key + text).digest(), "little") % L
        a, b = times(s, BASE), add(point(r), times(h, point(key)))
        SEEN[key, text, signature] = s < L and (a[0] * b[2] - b[0] * a[2]) % P == 0 == (a[1] * b[2] - b[1] * a[2]) % P
    return SEEN[key, text, signature]

def node(left, right):
    return hashlib.sha256(b"\1" + left + right).digest()

def root(hashes):                                                         # RFC 6962, 2.1
    if len(hashes) < 2:
        return hashes[0] if hashes else hashlib.sha256().digest()
    half = 1 << (len(hashes) - 1).bit_length() - 1
    return node(root(hashes[:half]), root(hashes[half:]))

def checkpoint(raw, epochs):                                              # C2SP signed-note and tlog-checkpoint
    text, _, mark = raw.decode().rpartition("\n\n")
    text, (dash, name, code) = text + "\n", mark.removesuffix("\n").split(" ")
    origin, size, top, time, boot, end = text.split("\n")
    key, blob = [key for start, key in epochs if start <= int(size)][-1], base64.b64decode(code, validate=True)
    tag = hashlib.sha256((origin + "\n").encode() + b"\1" + key[1]).digest()[:4]
    assert mark[-1] == "\n" and dash == "\u2014" and name == origin == key[0] and end == "" and str(int(size)) == size
    assert blob[:4] == tag and len(blob) == 68 and time.startswith("time ") and re.fullmatch(r"boot \S+ \d+", boot)
    assert base64.b64encode(blob).decode() == code and signed(key[1], text.encode(), blob[4:]), "not signed"
    return int(size), base64.b64decode(top, validate=True)

def tile(at, level, index, width, most=0):                                # of the least width from `width` to `most`
    digits = "/".join(f"x{index // 1000**i % 1000:03}" for i in range(3, 0, -1) if index >= 1000**i)
    name = os.path.join(at, "tile", str(level), digits, f"{index % 1000:03}")
    names = [name + (f".p/{wide}" if wide < 256 else "") for wide in range(width, max(width, most) + 1)]
    return open(next(filter(os.path.isfile, names), names[0]), "rb").read()

def anchors(at, epochs, lines):                                           # the most lines that one of ours signs
    place, most = os.path.join(at, hashlib.sha256(epochs[0][1][0].encode()).hexdigest()), 0
    for name in sorted(os.listdir(place)) if os.path.isdir(place) else []:
        name = os.path.join(place, name)
        if os.path.isfile(name) and not os.path.islink(name) and name.endswith(".checkpoint"):
            try:
                size, top = checkpoint(open(name, "rb").read(16 << 10), epochs)
            except Exception:                                             # who is not root proves nothing by a wrong one
                assert os.stat(name).st_uid, f"{name} is not signed by the log"
                continue
            assert size <= len(lines) and root(lines[:size]) == top, f"{name} signs other lines"
            most = max(most, size)
    return most

def verify(at, outside=None):
    read = lambda *name: open(os.path.join(at, *name), "rb").read()
    epochs, lines, gaps, removed, before = [], [], 0, {}, None
    for number in range(1, len(os.listdir(os.path.join(at, "keys"))) + 1):
        raw = read("keys", f"epoch-{number}.pub").decode()
        name, tag, code, start = re.fullmatch(r"([^+\n]+)\+([0-9a-f]{8})\+(\S+)\nfrom (0|[1-9]\d*)\n", raw).groups()
        key = base64.b64decode(code, validate=True)
        assert key[0] == 1 and len(key) == 33 and hashlib.sha256(f"{name}\n".encode() + key).hexdigest()[:8] == tag
        assert base64.b64encode(key).decode() == code and (int(start) == 0) == (number == 1)
        epochs.append((int(start), (name, key[1:])))
    names = sorted(name for name in os.listdir(os.path.join(at, "seg")) if re.fullmatch(r"\d{12,}\.jsonl(\.zst)?", name))
    names = [name for name in names if name.removesuffix(".zst") not in names or not name.endswith(".zst")]
    torn = last = 0
    for name in names:
        raw = read("seg", name)
        if name.endswith(".zst"):
            if not shutil.which("zstd"):
                raise PermissionError(f"{name} is compressed, and the command zstd is not there")
            raw = subprocess.run(["zstd", "-dc"], input=raw, stdout=subprocess.PIPE, check=True).stdout
        first, (*whole, rest) = int(name.split(".")[0]), raw.split(b"\n")
        if first > len(lines):                                            # removed: their hashes stand for them
            removed[len(lines)], before = first, "removed"
            hashes = b"".join(tile(at, 0, i, min(256, first - i * 256), 256) for i in range((first + 255) // 256))
            lines += [hashes[i * 32:i * 32 + 32] for i in range(len(lines), first)]
        assert first == len(lines) and (not rest or name == names[-1]) and not names[-1].endswith(".zst")
        torn += len(rest)
        for number, line in enumerate(whole, first):
            record = json.loads(line)
            assert record["seq"] == number and len(line) < 61440 and (record["kind"] == "log.segment") == (number == first)
            assert number > first or record["segment"]["first_seq"] == first
            bound = record.get("boot_id") if number == first else bound
            assert record.get("boot_id", bound) == bound, "another boot than its segment"
            assert number > first or before in ("removed", record["segment"].get("previous"))
            gaps += record["kind"] == "gap"
            last = number + 1 if record["kind"] != "anchor" else last
            if record["kind"] == "retention" and removed.get(record["retention"]["first_seq"]):
                end = removed.pop(record["retention"]["first_seq"])
                begun = record["retention"]["first_seq"] + record["retention"]["lines"]
                removed.update({begun: end} if begun < end else {})
            lines.append(hashlib.sha256(b"\0" + line).digest())
        before = first
    assert not removed, "lines are not there"
    aside = os.listdir(os.path.join(at, "torn")) if os.path.isdir(os.path.join(at, "torn")) else []
    torn += any(name.endswith(".undeclared") for name in aside)
    newest, top = checkpoint(read("checkpoint"), epochs)
    kept = [name for name in os.listdir(os.path.join(at, "checkpoints")) if name[0] != "."]
    for size, top in [(newest, top)] + [checkpoint(read("checkpoints", name), epochs) for name in kept]:
        assert size <= newest <= len(lines) and root(lines[:size]) == top, "not the lines that were signed"
    assert all(checkpoint(read("checkpoints", name), epochs)[0] == int(name) and str(int(name)) == name for name in kept)
    level, hashes = 0, lines[:newest]
    while hashes:
        for i in range(0, len(hashes), 256):
            assert tile(at, level, i // 256, len(hashes[i:i + 256])) == b"".join(hashes[i:i + 256]), "a tile differs"
        hashes = [root(hashes[i:i + 256]) for i in range(0, len(hashes) - 255, 256)]
        level += 1
    anchored = anchors(outside, epochs, lines) if outside else 0
    return 2 if gaps or torn else 0 if anchored and anchored >= min(last, newest) else 1

def judge(at, outside=None):
    at = at if os.path.isdir(os.path.join(at, "seg")) else os.path.join(at, "audit")
    try:
        return verify(at, outside) if os.path.isdir(os.path.join(at, "seg")) else 4
    except PermissionError as error:
        print(f"{at}: {error}", file=sys.stderr)
        return 4
    except Exception as error:                                            # whatever is not as described is tampering
        print(f"{at}: {error!r}", file=sys.stderr)
        return 3

if __name__ == "__main__":
    if sys.argv[1:] == ["-"]:
        for line in sys.stdin:
            print(judge(line.rstrip("\n")), flush=True)
    else:
        sys.exit(judge(*sys.argv[1:]) if len(sys.argv) in (2, 3) else print(__doc__) or 4)
