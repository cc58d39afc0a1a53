"""Tasks that may use any global. On fork."""

import backends

space = globals()
backends.steps(space, {
    "a global that is new and goes": (
        [lambda: None, lambda: space.update(any_new=1), lambda: space.pop("any_new")],
        "[name for name in globals() if name.startswith('any_')]",
    ),
    "a global without a name": ([lambda: space.update({"": 1})], "space[''] if '' in globals() else 1"),
    "a global that a text evaluates": (
        [lambda: space.update(shown="1"), lambda: space.update(shown="any_other", any_other=2)], "eval(shown)",
    ),
})  # fmt: skip

if __name__ == "__main__":
    backends.run(space)
