import re
import subprocess
import sys
from pathlib import Path


def test_opencv_is_loaded_first(repository: Path) -> None:
    """Otherwise its windows hang."""
    script = "import sys, diffusion_policy.common.video_recorder; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    modules = result.stdout.split()
    assert modules.index("cv2") < modules.index("av")
    sources = [*repository.glob("*.py"), *(repository / "diffusion_policy").rglob("*.py")]
    direct = [path.name for path in sources if re.search(r"^\s*(import av|from av)\b", path.read_text(), re.MULTILINE)]
    assert direct == ["pyav.py"]
