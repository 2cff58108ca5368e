"""Files made to run code, to exhaust the machine or to mislead: each gives one clear error."""

import os
import pickle
import random
import subprocess
import sys
import warnings
import zipfile

import pytest
import torch
from hostile import built, call, items, name, new, original, plain, storage, tensor, write_archive

from diffusion_policy.common.checkpoint_file import CheckpointError, read_checkpoint, write_checkpoint

TOUCH = "touch attacked"
CONFIG = ("omegaconf.dictconfig", "DictConfig")
NODE = ("omegaconf.nodes", "AnyNode")

RUNS_CODE = {
    "os.system": call("os", "system", TOUCH),
    "posix.system": call("posix", "system", TOUCH),
    "subprocess": call("subprocess", "check_output", ["touch", "attacked"]),
    "subprocess.Popen": call("subprocess", "Popen", ["touch", "attacked"]),
    "eval": call("builtins", "eval", "open('attacked', 'w')"),
    "python 2's eval": call("__builtin__", "eval", "open('attacked', 'w')"),
    "exec": call("builtins", "exec", "open('attacked', 'w')"),
    "getattr": call("builtins", "getattr", "", "join"),
    "__import__": call("builtins", "__import__", "os"),
    "open": call("builtins", "open", "attacked", "w"),
    "importlib": call("importlib", "import_module", "antigravity"),
    "runpy": call("runpy", "run_path", "attacked"),
    "torch.hub": call("torch.hub", "load_state_dict_from_url", "http://localhost/"),
    "torch.load": call("torch", "load", "attacked"),
    "torch.serialization.load": call("torch.serialization", "load", "attacked"),
    "pickle.loads": call("pickle", "loads", pickle.dumps(1)),
    "_pickle.loads": call("_pickle", "loads", pickle.dumps(1)),
    "dill.loads": call("dill", "loads", pickle.dumps(1)),
    "dill._create_function": call("dill._dill", "_create_function", "code"),
    "dill._import_module": call("dill._dill", "_import_module", "os"),
    "types.CodeType": call("types", "CodeType", 0),
    "hydra's get_method": call("hydra.utils", "get_method", "os.system"),
    "functools.partial": call("functools", "partial", "a"),
    "operator.attrgetter": call("operator", "attrgetter", "system"),
    "codecs.decode": call("_codecs", "decode", b"attacked", "rot13"),
    "encode with another codec": call("_codecs", "encode", "attacked", "rot13"),
    "shutil": call("shutil", "rmtree", "."),
    "webbrowser": call("webbrowser", "open", "http://localhost/"),
    "our own function": call("diffusion_policy.common.checkpoint_file", "link_checkpoint", "a", "attacked"),
    "numpy.load": call("numpy", "load", "attacked"),
    "dotted name": call("collections", "OrderedDict.__class__", "a"),
    "torch module": new("torch.nn.modules.linear", "Linear"),
    "rebuild from type": call("torch._tensor", "_rebuild_from_type_v2", print, torch.Tensor, (), {}),
    "attributes of a dict": built(b"}", items(__class__=plain(1))),
    "attributes of a name": built(name("collections", "OrderedDict"), items(__init__=plain(1))),
    "attributes of an OrderedDict": built(call("collections", "OrderedDict"), items(__class__=plain(1))),
    "default of a defaultdict": name("collections", "defaultdict") + b"(" + plain("a") + b"tR",
    "storage of an unknown kind": tensor(storage(kind=name("os", "system"))),
    "hooks of a tensor": tensor(hooks=items(hook=plain(1))),
    "state of a parameter": name("torch._utils", "_rebuild_parameter_with_state") + b"(" + tensor() + b"tR",
    "hook of a parameter": name("torch._utils", "_rebuild_parameter") + b"(" + tensor() + b"\x88K\x01tR",
    "size that is a call": name("torch._utils", "_rebuild_tensor_v2") + b"(" + storage() + call("os", "getpid") + b"tR",
    "protocol 4": plain("os") + plain("system") + b"\x93" + plain((TOUCH,)) + b"R",
}  # fmt: skip


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / "attacked").exists()


def refused(path, *words):
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert str(path) in message
    for word in words:
        assert word in message
    return message


@pytest.mark.parametrize("place", ["cfg", "state", "pickles", "inside pickles", "own format"])
@pytest.mark.parametrize("attack", RUNS_CODE)
def test_code_is_not_run(tmp_path, attack, place):
    code = RUNS_CODE[attack]
    if place == "inside pickles":
        code = original(
            pickles=items(epoch=call("_codecs", "encode", (b"\x80\x02" + code + b".").decode("latin-1"), "latin1"))
        )
    elif place == "own format":
        code = b"\x80\x02" + items(format=plain("diffusion_policy.checkpoint/1"), values=items(epoch=code)) + b"."
    else:
        code = original(**{place: code})
    refused(write_archive(tmp_path / "a.ckpt", code))


@pytest.mark.parametrize("module", ["os", "subprocess", "torch.hub"])
def test_refusal_names_what_the_file_asks_for_and_what_to_do(tmp_path, module):
    message = refused(write_archive(tmp_path / "a.ckpt", original(state=call(module, "run", TOUCH))))
    assert f"asks for {module}.run" in message
    assert "--trust" in message


def test_real_reduce_is_refused_and_trust_runs_it(tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, ("trusted",)

    content = {"cfg": {}, "state_dicts": {}, "pickles": {}, "extra": Attack()}
    torch.save(content, tmp_path / "a.ckpt")
    refused(tmp_path / "a.ckpt", "mkdir", "--trust")
    assert not (tmp_path / "trusted").exists()
    with pytest.raises(CheckpointError, match="outside its config"):
        read_checkpoint(write_archive(tmp_path / "b.ckpt", original(state=name("typing", "Any"))))
    read_checkpoint(tmp_path / "a.ckpt", trust=True)
    assert (tmp_path / "trusted").exists()


def node(**state):
    return new(*NODE, items(**state))


HOSTILE_CONFIGS = {
    "dunder attributes": new(*CONFIG, items(__class__=plain("os"), _content=name("os", "system"))),
    "content that is an object": new(*CONFIG, items(_content=node(_val=plain(1)))),
    "content of a list": new("omegaconf.listconfig", "ListConfig", items(_content=items(a=plain(1)))),
    "no content": new(*CONFIG),
    "value that is a container": new(*CONFIG, items(_content=items(a=node(_val=plain([1]))))),
    "value that is a name": new(*CONFIG, items(_content=items(a=node(_val=name("typing", "Any"))))),
    "a tensor": tensor(),
    "state set twice": new(*CONFIG) + b"}b",
    "state that is no dict": new(*CONFIG, plain((1, 2))),
    "setstate of another class": new("omegaconf.omegaconf", "OmegaConf"),
    "an enum": new("omegaconf.nodes", "EnumNode", items(enum_type=name("os", "system"))),
}


@pytest.mark.parametrize("attack", HOSTILE_CONFIGS)
def test_hostile_config_nodes_are_refused(tmp_path, attack):
    refused(write_archive(tmp_path / "a.ckpt", original(cfg=HOSTILE_CONFIGS[attack])))


WRONG_TENSORS = {
    "more numbers than the record": tensor(storage(numel=2**28)),
    "numbers beyond all memory": tensor(storage(numel=2**60)),
    "fewer numbers than the record": tensor(storage(numel=2)),
    "negative numbers": tensor(storage(numel=-1)),
    "shape out of bounds": tensor(size=(5,)),
    "stride out of bounds": tensor(size=(2, 2), stride=(3, 1)),
    "offset out of bounds": tensor(offset=1),
    "negative offset": tensor(offset=-4),
    "negative stride": tensor(size=(2,), stride=(-1,)),
    "huge shape": tensor(size=(2**40, 2**40), stride=(1, 1)),
    "expanded without end": tensor(size=(2**40,), stride=(0,)),
    "sizes without strides": tensor(size=(2, 2), stride=(1,)),
    "shape of text": tensor(size="ab", stride="cd"),
    "dimensions without end": tensor(size=(1,) * 1000, stride=(1,) * 1000),
    "absent record": tensor(storage(key="1")),
    "record outside": tensor(storage(key="../../etc/passwd")),
    "two types of one record": plain([]) + b"(" + tensor() + tensor(storage(kind=name("torch", "IntStorage"))) + b"e",
    "persistent id of text": plain("storage") + b"Q",
    "persistent id of a module": b"(" + plain("module") + plain("os") + b"tQ",
    "wrong numpy number": call("numpy.core.multiarray", "scalar", "f8", b"12345678"),
    "numpy object": call("numpy", "dtype", "O8", False, True),
}


@pytest.mark.parametrize("attack", WRONG_TENSORS)
def test_tensors_that_contradict_their_records_are_refused(tmp_path, attack):
    refused(write_archive(tmp_path / "a.ckpt", original(state=items(weight=WRONG_TENSORS[attack]))))


def laughs(depth):
    """Tuples of ten references to the tuple before: few bytes that stand for 10^depth values."""
    code = b"(" + plain("ha") * 10 + b"tq\x64"
    for i in range(depth):
        code += b"(" + b"h%c" % (100 + i) * 10 + b"tq" + b"%c" % (101 + i)
    return b"(" + code + b"t"


WASTEFUL = {
    "memo index of four billion": original(cfg=b"Nr\xff\xff\xff\xff" + call("os", "system", TOUCH)),
    "bytes of 2^62": original(cfg=b"\x8e" + (2**62).to_bytes(8, "little")),
    "text of 2^32": original(cfg=b"X\xff\xff\xff\xff"),
    "integer of 2^31 bytes": original(cfg=b"\x8b\xff\xff\xff\x7f"),
    "frame of 2^60": b"\x80\x04\x95" + (2**60).to_bytes(8, "little"),
    "laughs in the config": original(cfg=items(a=laughs(20))),
    "laughs in the weights": original(state=items(a=laughs(20))),
    "config that holds itself": original(cfg=b"}q\xc8(" + plain("a") + b"h\xc8u"),
    "weights that hold themselves": original(state=b"}q\xc8(" + plain("a") + b"h\xc8u"),
    "deep lists": original(state=items(a=b"]" * 200_000 + b"a" * 199_999)),
    "deep tuples": original(state=items(a=b")" + b"\x85" * 300_000)),
    "deep tuple as a key": original(state=b"})" + b"\x85" * 300_000 + b"Ns"),
    "deep tuple as a state": original(cfg=built(call("collections", "OrderedDict"), b")" + b"\x85" * 300_000)),
    "millions of parts": original(state=b"(" + b"}" * 5_000_000 + b"t"),
    "no end": b"\x80\x02" + b"(" * 1000,
    "pop of nothing": b"\x80\x02a.",
    "nothing": b"",
}

IN_LITTLE_MEMORY = """
import pathlib, resource, sys, time
from diffusion_policy.common.checkpoint_file import CheckpointError, read_checkpoint
size = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 600 * 2**20,) * 2)
for path in sys.argv[1:]:
    start = time.monotonic()
    try:
        read_checkpoint(path)
    except CheckpointError as error:
        assert len(str(error)) < 2000, len(str(error))
        print("refused", path, flush=True)
    assert time.monotonic() - start < 20, path
"""


def test_wasteful_files_neither_exhaust_memory_nor_hang(tmp_path, repository):
    paths = [write_archive(tmp_path / f"{attack}.ckpt", code) for attack, code in WASTEFUL.items()]
    done = subprocess.run(
        [sys.executable, "-c", IN_LITTLE_MEMORY, *map(str, paths)],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"refused {path}" for path in paths]


def _bomb(path):
    write_archive(path, original(), {"archive/data/0": bytes(50_000_000)}, compression=zipfile.ZIP_DEFLATED)


def _edited(find, replace):
    def make(path):
        write_archive(path, original(state=items(weight=tensor())))
        content = path.read_bytes()
        assert find in content
        path.write_bytes(content.replace(find, replace))

    return make


def _overlapping(path):
    """Two entries of the table of contents at one place, as in zip bombs without compression."""
    write_archive(path, original(), {"archive/data/0": b"a" * 40, "archive/data/1": b"a" * 40})
    content = bytearray(path.read_bytes())
    first = content.find(b"PK\x01\x02", content.find(b"PK\x01\x02") + 4)
    second = content.find(b"PK\x01\x02", first + 4)
    content[second + 42 : second + 46] = content[first + 42 : first + 46]
    path.write_bytes(bytes(content))


def _claiming(path):
    """A record that claims a gigabyte in both of its headers."""
    write_archive(path, original(), {"archive/data/0": b"a" * 40})
    content = path.read_bytes()
    path.write_bytes(content.replace((40).to_bytes(4, "little") * 2, (2**30).to_bytes(4, "little") * 2))


def _twice(path):
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")
        for code in (original(), original(cfg=call("os", "system", TOUCH))):
            archive.writestr("archive/data.pkl", code)


def _script(path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), path)


def _safetensors(path):
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(40))


FILES = {
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "text": (lambda path: path.write_text("epoch: 3, and more text than a number"), "a text file that begins"),
    "safetensors": (_safetensors, "a safetensors file"),
    "legacy torch": (lambda path: torch.save({}, path, _use_new_zipfile_serialization=False), "torch before 1.6"),
    "bare pickle": (lambda path: path.write_bytes(pickle.dumps([os.mkdir] * 9)), "a bare pickle"),
    "TorchScript": (_script, "a TorchScript archive"),
    "folder": (lambda path: path.mkdir(), "a folder"),
    "FIFO": (os.mkfifo, "no regular file"),
    "xz": (lambda path: path.write_bytes(b"\xfd7zXZ\x00" + bytes(40)), "xz -d"),
    "wrong magic": (lambda path: path.write_bytes(random.Random(1).randbytes(5000)), "no archive"),
    "zip of other things": (lambda path: zipfile.ZipFile(path, "w").writestr("a/b", "c"), "without data.pkl"),
    "zip bomb": (_bomb, "compressed"),
    "overlapping records": (_overlapping, "overlaps"),
    "claims a gigabyte": (_claiming, "claims|another size"),
    "duplicate names": (_twice, "twice"),
    "path traversal": (lambda path: write_archive(path, original(), {"archive/../../x": b"1"}), "which torch gives"),
    "absolute name": (lambda path: write_archive(path, original(), {"/etc/passwd": b"1"}), "which torch gives"),
    "several folders": (lambda path: write_archive(path, original(), {"other/data/0": b"1"}), "several folders"),
    "name unlike its header's": (_edited(b"PK\x01\x02", b"PK\x01\x03"), "table of contents"),
    "other byte order": (lambda path: write_archive(path, original(), {"archive/byteorder": b"big"}), "byte order"),
    "changed number": (_edited(b"\x00\x00\x80\x3f\x00", b"\x00\x00\x81\x3f\x00"), "checksum of record data/0"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_files_of_other_kinds_are_named(tmp_path, kind):
    make, words = FILES[kind]
    make(tmp_path / "a.ckpt")
    message = refused(tmp_path / "a.ckpt")
    assert any(word in message for word in words.split("|")), message


def _own_format(path, compat):
    values = {"epoch": 3, "score": 0.5, "text": "a", "list": [1, (2, None)]}
    weights = {f"layer{i}": torch.arange(50.0) + i for i in range(20)}
    write_checkpoint(path, {"cfg": {"policy": {"a": [1]}}, "state_dicts": {"model": weights}, "values": values})


def _original_format(path, compat):
    path.write_bytes((compat / "ckpt" / "bet_lowdim.ckpt").read_bytes())


def _tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else []
    return [each for child in children for each in _tensors(child)]


def _rest(value):
    if isinstance(value, dict):
        return {key: _rest(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rest(each) for each in value]
    return None if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize("write", [_own_format, _original_format])
def test_flipped_bits_are_noticed_or_change_nothing(tmp_path, compat, write):
    path = tmp_path / "a.ckpt"
    write(path, compat)
    whole, data = read_checkpoint(path), path.read_bytes()
    rng, noticed = random.Random(0), 0
    for _ in range(200):
        position, bit = rng.randrange(len(data)), rng.randrange(8)
        damaged = bytearray(data)
        damaged[position] ^= 1 << bit
        path.write_bytes(bytes(damaged))
        try:
            payload = read_checkpoint(path)
        except CheckpointError:
            noticed += 1
            continue
        assert _rest(payload) == _rest(whole)
        assert all(torch.equal(a, b) for a, b in zip(_tensors(payload), _tensors(whole), strict=True))
    assert noticed > 80


@pytest.mark.parametrize("write", [_own_format, _original_format])
def test_truncated_files_are_refused(tmp_path, compat, write):
    path = tmp_path / "a.ckpt"
    write(path, compat)
    data = path.read_bytes()
    for keep in (1, 21, 22, 100, len(data) // 2, len(data) - 30, len(data) - 1):
        path.write_bytes(data[:keep])
        refused(path, "truncated")


def test_shared_tensors_stay_shared(tmp_path):
    weight = torch.arange(6.0)
    state = {
        "a": weight,
        "b": weight,
        "part": weight[2:5].reshape(3, 1).T,
        "scalar": torch.tensor(2),
        "none": weight[:0],
    }
    torch.save({"cfg": {}, "state_dicts": {"model": state}, "pickles": {}}, tmp_path / "a.ckpt")
    read = read_checkpoint(tmp_path / "a.ckpt")["state_dicts"]["model"]
    assert read["a"].data_ptr() == read["b"].data_ptr() == read["part"].data_ptr() - 8
    for key, value in state.items():
        assert torch.equal(read[key], value)
        assert read[key].stride() == value.stride()
        assert read[key].dtype == value.dtype
