//! A client in plain Python: the modules `store` and `_memory_files` of the package, without anything else of arenite.

use std::path::Path;
use std::process::{Command, Stdio};

use arenite::Array;

use crate::harness::programs::Program;
use crate::harness::tests;
use crate::programs::{Home, SOCKET};

tests![a_client_in_plain_python_uses_the_store];

const CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../python/arenite");

const SCRIPT: &str = r#"
import importlib, os, sys, types
package = sys.modules["plain"] = types.ModuleType("plain")
package.__path__ = [sys.argv[1]]
# Without the extension, which may be in the folder.
sys.modules["plain._arenite"] = None
module = importlib.import_module("plain.store")
assert {name for name in sys.modules if name.startswith("plain.")} == {
    "plain._arenite", "plain._memory_files", "plain.store"
}
assert not any(name.split(".")[0] == "arenite" for name in sys.modules)

store = module.connect(os.environ["ARENITE_TEST_SOCKET"])
assert list(store) == ["from rust"], list(store)
info = store.objects()[0]
assert (info["kind"], info["dtype"], info["shape"]) == ("array", "<u4", [2, 3]), info

# Without numpy: the bytes.
store["from python"] = b"bytes"
content = store["from python"]
assert bytes(content) == b"bytes" and content.readonly
assert store.objects()[0]["leases"] == 1
del content
assert store.info()["used"] == 24 + 5
assert store.objects()[0]["leases"] == 0, store.objects()
try:
    store.put("from python", b"more")
except module.ObjectExists as error:
    assert "replace or remove it" in str(error), error
else:
    raise AssertionError("it exists")
store["empty"] = b""
assert len(store["empty"]) == 0
del store["empty"]
try:
    store["empty"]
except KeyError as error:
    assert isinstance(error, module.NoObject) and str(error).startswith("there is no object"), error
else:
    raise AssertionError("it is removed")
try:
    store.put("large", bytearray(2 << 20))
except MemoryError as error:
    assert (error.requested, error.capacity) == (2 << 20, 1 << 20), error
else:
    raise AssertionError("it does not fit")
# A forked process connects by itself.
child = os.fork()
if child == 0:
    os._exit(0 if bytes(store["from python"]) == b"bytes" else 1)
assert os.waitpid(child, 0)[1] == 0
assert store.info()["clients"] >= 1
print("plain client done")
"#;

fn a_client_in_plain_python_uses_the_store() {
    if Command::new("python3")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_err()
    {
        return crate::harness::not_tried("a client in Python: there is none");
    }
    let home = Home::new();
    let mut server: Program = home.serve_with(|| Ok(()), 1 << 20, &[]);
    let store = home.connect();
    let array = Array::from_fn([2, 3], |i| i as u32);
    store.put("from rust", &array).unwrap();
    assert!(Path::new(CLIENT).is_dir());
    let ended = Command::new("python3")
        .args(["-I", "-B", "-c", SCRIPT, CLIENT])
        .env(SOCKET, home.path())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{errors}");
    assert_eq!(
        String::from_utf8_lossy(&ended.stdout),
        "plain client done\n"
    );
    assert_eq!(store.get_bytes("from python").unwrap().1[..], *b"bytes");
    store.stop().unwrap();
    server.wait().assert_done();
}
