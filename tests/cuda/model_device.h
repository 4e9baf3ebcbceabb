/* model_device.h - the emulator as a device of the run-time library. */
#ifndef MODEL_DEVICE_H
#define MODEL_DEVICE_H

#include "gpu.h"
#include "emulator.h"

/* The kernels of the program under test, by name. */
struct model_kernel {
    const char *name;
    emu_kernel *kernel;
};
extern const struct model_kernel model_kernels[];
extern const int n_model_kernels;

struct device *emulated_device(void);
/* Launches so far, and those that could start early. */
extern long emulated_launches, emulated_early;

#endif
