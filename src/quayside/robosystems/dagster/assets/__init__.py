"""Assets of RoboSystems: one for each adapter, and those of ``custom_*`` modules in this folder, which are found by themselves."""
