"""What pyproject.toml cannot say: in the wheel, the files of configs/ are in vmoe_inform/configs."""

import setuptools

setuptools.setup(
    packages=[*setuptools.find_packages(include=["vmoe_inform*"]), "vmoe_inform.configs"],
    package_dir={"vmoe_inform.configs": "configs"},
)
