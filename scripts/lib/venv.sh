# Sourced by the scripts, which set `root`: makes a virtual environment that holds exactly a lock
# file. Works with the bash 3.2 of macOS.

NEEDED_MB=1500 # free disk space that an environment needs while it is made

fail() { # MESSAGE...
  { echo && printf '%s\n' "$@"; } >&2
  exit 1
}

# Prints the command of a Python that is new enough.
find_python() {
  local candidate found=""
  for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python3.14 python; do
    command -v "$candidate" >/dev/null 2>&1 || continue
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      command -v "$candidate"
      return
    fi
    found=$("$candidate" -c 'import platform; print(platform.python_version())' 2>/dev/null) || true
  done
  if [ -n "$found" ]; then
    fail "This Python is too old: version $found. Colloquy needs 3.11 or newer." \
      "Install one (Debian 12, Ubuntu 24.04 and later: apt-get install python3; macOS: brew install python)" \
      "or name it: PYTHON=/path/to/python3.12 $0"
  fi
  fail "There is no python3 here. Colloquy needs Python 3.11 or newer." \
    "Debian, Ubuntu: apt-get install python3 python3-venv    macOS: brew install python"
}

# What must be installed in VENV for LOCK, as one line: changes when either file, the Python
# project or the place of the environment does.
stamp_of() { # VENV LOCK
  cksum "$2" "$root/scripts/lib/uv.txt" "$root/pyproject.toml" | tr '\n' ' '
  printf '%s\n' "$1"
}

# Megabytes that are free where the repository lies.
free_mb() { df -Pk "$root" | awk 'NR == 2 { print int($4 / 1024) }'; }

# Creates VENV if it is not there, with pip in it.
create_venv() { # VENV
  [ -x "$1/bin/python" ] && "$1/bin/python" -c 'import pip' >/dev/null 2>&1 && return
  local python
  python=$(find_python) || exit 1
  "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 ||
    fail "This Python cannot make virtual environments: its venv or ensurepip module is missing." \
      "Debian, Ubuntu: apt-get install python3-venv"
  [ "$(free_mb)" -ge "$NEEDED_MB" ] ||
    fail "Not enough disk space in $root: $(free_mb) MB are free, $NEEDED_MB MB are needed."
  "$python" -m venv --clear "$1" || fail "The virtual environment $1 could not be made (see above)."
}

# Whether an installer's LOG, which may have found no room itself, shows a full disk; whether it
# shows that nothing could be reached.
disk_is_full() { grep -qiE 'no space left|disk quota' "$1" || [ "$(free_mb)" -lt 20 ]; }
is_offline() {
  grep -qiE 'name resolution|failed to resolve|could not resolve|dns error|nodename nor servname|unreachable|connection (refused|reset)|newconnectionerror|timed out|error sending request' "$1"
}

# Says what went wrong, from what the installer printed.
explain() { # LOG
  disk_is_full "$1" &&
    fail "The disk is full. Free about $NEEDED_MB MB and start again: it goes on from here."
  is_offline "$1" &&
    fail "The packages could not be fetched. Is there a network? Behind a proxy or with a mirror of your own," \
      "set that up for pip (HTTPS_PROXY, or pip config set global.index-url URL) and start again."
  tail -n 20 "$1" >&2
  fail "The packages could not be installed: see above, and all of it in $1"
}

# Prints the path of the pinned uv beside VENV's packages; installs it first where it is absent.
# Fails where it cannot be had, with pip's words in VENV/install.log.
uv_of() { # VENV
  local have
  have=$("$1/.uv/bin/uv" --version 2>/dev/null | awk '{ print $1 "==" $2 }') || true
  if [ -z "$have" ] || ! grep -q "^$have " "$root/scripts/lib/uv.txt"; then
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --upgrade \
      --only-binary :all: --target "$1/.uv" -r "$root/scripts/lib/uv.txt" >"$1/install.log" 2>&1 || return 1
  fi
  printf '%s\n' "$1/.uv/bin/uv"
}

# Makes VENV hold LOCK and this project. Does nothing, in no time, when it does already.
ensure_venv() { # VENV LOCK
  local venv=$1 lock=$2 stamp uv index progress=--quiet
  stamp=$(stamp_of "$venv" "$lock")
  if [ -x "$venv/bin/python" ] && [ "$(cat "$venv/installed" 2>/dev/null)" = "$stamp" ]; then
    return
  fi
  create_venv "$venv"
  echo "Installing packages into ${venv#"$root"/} (once, about a minute) ..." >&2
  rm -f "$venv/installed"
  if uv=$(uv_of "$venv"); then
    # uv does not read pip's configuration; a mirror that is set there is meant for uv too.
    if [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ] &&
      index=$(printenv PIP_INDEX_URL || "$venv/bin/python" -m pip config get global.index-url 2>/dev/null); then
      export UV_DEFAULT_INDEX=$index
    fi
    [ ! -t 2 ] || progress=--color=auto # that is: show it
    if "$uv" pip sync "$progress" --system-certs --python "$venv/bin/python" --require-hashes "$lock" &&
      "$uv" pip install --quiet --system-certs --python "$venv/bin/python" --no-deps --editable "$root"; then
      printf '%s\n' "$stamp" >"$venv/installed"
      return
    fi
    echo "uv could not install them; trying with pip ..." >&2
  elif disk_is_full "$venv/install.log" || is_offline "$venv/install.log"; then
    explain "$venv/install.log"
  fi
  local pip=("$venv/bin/python" -m pip install --disable-pip-version-check)
  if { "${pip[@]}" --require-hashes -r "$lock" && "${pip[@]}" --no-deps --editable "$root"; } \
    >"$venv/install.log" 2>&1; then
    printf '%s\n' "$stamp" >"$venv/installed"
    return
  fi
  explain "$venv/install.log"
}

# Has uv find PyTorch's CPU build, which the package index does not have: where pip is told to look besides, else
# in PyTorch's own index.
torch_cpu() { # VENV
  local places
  places=$(printenv PIP_FIND_LINKS || "$1/bin/python" -m pip config get global.find-links 2>/dev/null) || true
  if [ -n "$places" ]; then
    export UV_FIND_LINKS=$places
  else
    export UV_INDEX=https://download.pytorch.org/whl/cpu UV_INDEX_STRATEGY=unsafe-best-match
  fi
}
