/* plot.c - pictures, by gnuplot. */
#include "law.h"

#include <errno.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* The script in, the SVG out, both through unnamed files: nothing to quote and nothing to deadlock.
 */
static bool run_gnuplot(FILE *script, FILE *image)
{
    posix_spawn_file_actions_t files;
    char *argv[] = {(char *)"gnuplot", (char *)"-", NULL};
    pid_t pid;
    int status = 0;
    if (posix_spawn_file_actions_init(&files))
        return false;
    posix_spawn_file_actions_adddup2(&files, fileno(script), 0);
    posix_spawn_file_actions_adddup2(&files, fileno(image), 1);
    bool started = posix_spawnp(&pid, "gnuplot", &files, NULL, argv, environ) == 0;
    posix_spawn_file_actions_destroy(&files);
    if (!started)
        return false;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return false;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void copy_file(FILE *from, FILE *to)
{
    char buffer[4096];
    size_t n;
    rewind(from);
    while ((n = fread(buffer, 1, sizeof buffer, from)) > 0)
        fwrite(buffer, 1, n, to);
}

bool plot_svg(FILE *script, FILE *svg, const char **why)
{
    FILE *image = tmpfile();
    bool ok = false;
    rewind(script);
    if (!image || fflush(script) || ferror(script))
        *why = "no temporary file could be written for the plot: is the disk full?";
    else if (!run_gnuplot(script, image))
        *why = "gnuplot could not be run: install it (gnuplot-nox)";
    else
        ok = true;
    if (ok)
        copy_file(image, svg);
    if (image)
        fclose(image);
    return ok;
}

void plot_string(FILE *script, const char *text)
{
    fputc('\'', script);
    for (; *text; text++) {
        if (*text == '\'')
            fputc('\'', script);
        fputc(*text == '\n' || *text == '\r' ? ' ' : *text, script);
    }
    fputc('\'', script);
}

void plot_begin(FILE *script, int width, int height)
{
    fprintf(script,
            "set terminal svg size %d,%d dynamic noenhanced font 'sans-serif,13'\n"
            "set encoding utf8\nset grid lc rgb 'gray' lw 0.5\nset border 3\n"
            "set tics nomirror out\nset key top right\n"
            "set style line 1 lc rgb '#3b7dd8' lw 2 pt 7\n"
            "set style line 2 lc rgb '#d2502f' lw 2 pt 7\n"
            "set style line 3 lc rgb '#8a8f98' lw 1 pt 7\n"
            "set style line 4 lc rgb '#2f9e6e' lw 2 pt 9\n"
            "set style line 5 lc rgb '#c98a1b' lw 2 pt 5\n",
            width, height);
}
