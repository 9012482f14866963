"""What a wheel has beside Python files: the coder's loops in C, where a C compiler is. It is whole without them."""

from __future__ import annotations

import importlib.util
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Loops(BuildHookInterface):
    """Builds native/rans.c: into the source tree for an editable install, else into the wheel of this platform."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build, and say what was built; a pure wheel is what is left where that fails."""
        root = Path(self.root)
        spec = importlib.util.spec_from_file_location("native_build", root / "native" / "build.py")
        native = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(native)
        target = root / ("src" if version == "editable" else "build") / native.IN_PACKAGE
        target.parent.mkdir(parents=True, exist_ok=True)
        if told := native.build(target):
            self.app.display_warning(f"The coder will run in NumPy: {told}")
        elif version != "editable":
            build_data["force_include"][str(target)] = native.IN_PACKAGE
            build_data["pure_python"] = False
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"py3-none-{platform}"
