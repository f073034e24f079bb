"""Download one page: `fetch.py URL FILE`. URL may be a path, so that the example works without a network.

Exits with 1 where the page can't be had, and then leaves FILE as it was: half a page is worse than none.
"""

import sys
import urllib.error
import urllib.request
from pathlib import Path


def main(url: str, out: str) -> int:
    if "://" not in url:
        url = Path(url).resolve().as_uri()
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            page = answer.read()
    except (urllib.error.URLError, OSError) as error:
        print(f"can't fetch {url}: {error}", file=sys.stderr)
        return 1
    target = Path(out)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    part.write_bytes(page)
    part.replace(target)
    print(f"{url}: {len(page)} bytes in {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
