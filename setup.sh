#!/usr/bin/env bash
# Makes .venv the exact environment of requirements.lock. `make setup` calls it; it never asks anything.
#
#   ./setup.sh          create or update .venv
#   ./setup.sh lock     write requirements.lock anew from pyproject.toml
#
# PYTHON=/path/to/python chooses the interpreter (3.11 to 3.13); otherwise the first fitting one on PATH is used.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
export UV_PYTHON_DOWNLOADS=never

fail() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

# install_system_packages REASON PACKAGE...
install_system_packages() {
    local reason=$1 as_root=(env DEBIAN_FRONTEND=noninteractive)
    shift
    [ "$(id -u)" = 0 ] || as_root=(sudo -n "${as_root[@]}")
    "${as_root[@]}" apt-get --version >/dev/null 2>&1 ||
        fail "$reason" "Install these system packages (Debian names), then try again: $*"
    printf 'setup: %s; installing %s\n' "$reason" "$*" >&2
    "${as_root[@]}" apt-get -qq update </dev/null >/dev/null || true # an old package list may still do
    "${as_root[@]}" apt-get -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 install "$@" </dev/null >/dev/null ||
        fail "apt-get could not install: $*"
}

python_version() {
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null
}

find_python() {
    local candidate version found=""
    [ -n "${PYTHON:-}" ] || command -v python3 >/dev/null || install_system_packages "There is no python3" python3
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        version=$(python_version "$candidate") || continue
        case $version in
            3.11 | 3.12 | 3.13)
                command -v "$candidate"
                return
                ;;
        esac
        found+=" $candidate is Python $version."
    done
    fail "Python 3.11, 3.12 or 3.13 is needed.${found:- ${PYTHON:-python3} is none.}" \
        "Install one of them, or name it: make setup PYTHON=/path/to/python3.12"
}

# Prints the path of uv: the one on PATH, or one of our own in .uv/.
find_uv() {
    local python=$1
    if command -v uv; then return; fi
    if ! .uv/bin/uv --version >/dev/null 2>&1; then
        "$python" -c 'import ensurepip' 2>/dev/null ||
            install_system_packages "$python cannot create virtual environments" \
                "python$(python_version "$python")-venv"
        "$python" -m venv --clear .uv >&2 &&
            .uv/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.8,<1' >&2 ||
            fail "uv could not be installed into .uv, see above. Any uv on PATH will do as well."
    fi
    printf '%s\n' .uv/bin/uv
}

check_shared_libraries() {
    local complaint
    complaint=$(.venv/bin/python -c 'import cv2' 2>&1) && return
    case $complaint in
        *'cannot open shared object file'*)
            install_system_packages "OpenCV lacks ${complaint##*ImportError: }" libgl1 libglib2.0-0
            .venv/bin/python -c 'import cv2' || fail "OpenCV still does not load, see above"
            ;;
        *) fail "OpenCV does not load:" "$complaint" ;;
    esac
}

# MuJoCo renders without a screen through EGL, for which a machine without a GPU's driver needs Mesa's.
check_rendering() {
    local check='import os; os.environ["MUJOCO_GL"] = "egl"; import mujoco; mujoco.GLContext(8, 8).make_current()'
    .venv/bin/python -c "$check" >/dev/null 2>&1 && return
    (install_system_packages "MuJoCo finds no OpenGL to render with" libegl1 libegl-mesa0 libgl1-mesa-dri) &&
        .venv/bin/python -c "$check" ||
        printf 'setup: without it, videos and images of robosuite and the kitchen cannot be had\n' >&2
}

# The robot's client libraries, and the screen without a monitor on which windows and keys are tested.
check_robot_libraries() {
    local missing=()
    .venv/bin/python -c 'import pyrealsense2' >/dev/null 2>&1 || missing+=(libusb-1.0-0)
    .venv/bin/python -c 'import ctypes; ctypes.CDLL("libspnav.so.0")' >/dev/null 2>&1 || missing+=(libspnav0)
    command -v Xvfb >/dev/null || missing+=(xvfb)
    command -v xdotool >/dev/null || missing+=(xdotool)
    [ ${#missing[@]} = 0 ] && return
    (install_system_packages "The robot half lacks ${missing[*]}" "${missing[@]}") ||
        printf 'setup: without them, cameras, SpaceMouse or windows of the robot half do not work\n' >&2
}

make_environment() {
    local python uv
    python=$(find_python)
    uv=$(find_uv "$python")
    .venv/bin/python --version >/dev/null 2>&1 || "$uv" venv --quiet --clear --python "$python" .venv
    echo "setup: installing the packages of requirements.lock into .venv (some GB, once)"
    # Compiled here, for processes that may not write bytecode would compile some thousand files at every start.
    "$uv" pip sync --quiet --python .venv --compile-bytecode --require-hashes requirements.lock
    "$uv" pip install --quiet --python .venv --no-deps --editable .
    check_shared_libraries
    check_rendering
    check_robot_libraries
}

write_lock() {
    local python uv
    python=$(find_python)
    uv=$(find_uv "$python")
    "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
        --no-header --all-extras pyproject.toml --output-file requirements.lock
}

case ${1:-} in
    "") make_environment ;;
    lock) write_lock ;;
    *) fail "unknown command '$1'; usage: ./setup.sh [lock]" ;;
esac
