"""Who has to go, and who waits, when a shared KV cache runs full."""

from __future__ import annotations

import threading

from dockyard.engines._llama_pool import Pool, Share


def test_the_newest_yields_and_the_oldest_never() -> None:
    pool = Pool(100)
    oldest, middle, newest = pool.share(), pool.share(), pool.share()
    for share in (oldest, middle, newest):
        share.prompt(30)
    assert not newest.yields
    oldest.grow(11)
    assert (oldest.yields, middle.yields, newest.yields) == (False, False, True)
    newest.release()
    middle.grow(20)
    assert not middle.yields
    middle.grow(10)
    assert (oldest.yields, middle.yields) == (False, True)
    middle.release()
    oldest.grow(500)
    assert not oldest.yields


def test_a_prompt_counts_once_however_often_it_is_told() -> None:
    pool = Pool(100)
    first, second = pool.share(), pool.share()
    for _ in range(5):
        first.prompt(40)
        second.prompt(40)
    assert not second.yields


def test_without_a_limit_nobody_yields() -> None:
    pool = Pool(None)
    shares = [pool.share() for _ in range(9)]
    for share in shares:
        share.prompt(1 << 30)
    assert not any(share.yields for share in shares)


def test_a_claim_waits_for_room_and_holds_it() -> None:
    pool = Pool(100)
    holder = pool.share()
    holder.prompt(80)
    got: list[Share | None] = []
    waiting = threading.Thread(target=lambda: got.append(pool.claim(50, lambda _: False)))
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    holder.release()
    waiting.join(5)
    assert isinstance(got[0], Share)
    late = pool.share()
    late.prompt(60)
    assert (got[0].yields, late.yields) == (False, True)


def test_a_claim_ends_when_its_caller_is_gone() -> None:
    pool = Pool(100)
    pool.share().prompt(80)
    assert pool.claim(50, lambda _: True) is None


def test_one_alone_may_take_everything() -> None:
    pool = Pool(100)
    assert pool.claim(1000, lambda _: False) is not None
