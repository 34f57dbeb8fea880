"""What pyproject.toml cannot say: recipes go into the wheel, and the compiled library where there is a C compiler."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from setuptools import Distribution, Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

LIBRARY = Extension(
    "encdl._compiled",
    sources=[
        "encdl/ciphers/mask_network.c",
        "encdl/ciphers/nn/collaborative.c",
        "encdl/ciphers/nn/shrinkage.c",
        "encdl/keys/coupled_maps.c",
        "encdl/ciphers/postprocess/diffusion.c",
        "encdl/ciphers/postprocess/interleave.c",
    ],
    depends=["encdl/utils/compiled.h", "encdl/ciphers/mask_network_128.h", "encdl/ciphers/mask_network_avx512.h"],
    extra_compile_args=["-O3"],
    py_limited_api=True,
    optional=True,  # a compiler that fails over it leaves a package that works without
)


class BuildWithRecipes(build_py):
    """Copies `experiments/*.yaml` to `encdl/recipes`; a checkout's own are read where they lie."""

    def run(self) -> None:
        """Copy modules, data, and recipes."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, "encdl", "recipes")
        self.mkpath(str(target))
        for recipe in sorted(Path("experiments").glob("*.yaml")):
            self.copy_file(str(recipe), str(target / recipe.name))


def can_compile() -> bool:
    """Whether a C compiler is here and works."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.c")
        source.write_text("int probe(void) { return 0; }\n", encoding="utf-8")
        command = build_ext(Distribution({"ext_modules": [Extension("probe", [str(source)])]}))
        command.build_lib = command.build_temp = folder
        try:
            command.ensure_finalized()
            command.run()
        except Exception:  # compilers fail in many ways, and none may stop the installation
            return False
    return True


compiling = can_compile()
if not compiling:
    print("encdl: no C compiler here: without compiled code encryption is several times slower", file=sys.stderr)
setup(
    ext_modules=[LIBRARY] if compiling else [],
    cmdclass={"build_py": BuildWithRecipes},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if compiling else {},
)
