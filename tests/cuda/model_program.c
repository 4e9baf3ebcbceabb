/* model_program.c - a whole program, main() included, whose CUDA driver is the emulator. */
#include "model_device.h"

struct device *cuda_device_open(char *why, size_t room)
{
    (void)why;
    (void)room;
    emu_seed(1);
    return emulated_device();
}
