import arenite, ctypes

def parse(text):
    return ctypes.CDLL("./libparser.so").parse(text)

with arenite.Executor(max_workers=2, output=None) as ex:
    tasks = [ex.submit(parse, text) for text in (b"one", b"two", None, b"four")]
    for task in tasks:
        try:
            print("parsed:", task.result())
        except arenite.WorkerDied as died:
            print("WorkerDied:", died.crash.text)
            print("  C", *died.crash.frames[:2], sep="\n    ")
            print("  Python", *died.last_words[2:3], sep="\n  ")
