/* html.c - one self-contained HTML file: text, tables, and pictures in it.
 *
 * No script, no link to anything outside. Every text that comes from a spec, a law or a file is
 * escaped here; callers pass it as it is. */
#include "law.h"

#include <stdarg.h>
#include <string.h>

/* Colours of both schemes. gnuplot writes axes and letters as black and grey: they follow. */
static const char style[] =
    ":root{--paper:#fff;--ink:#1b1f24;--soft:#5b6470;--line:#d9dde3;--head:#f3f5f8;--accent:#"
    "2f6fc4;"
    "--warn:#8a5a00;--warn-paper:#fff6e2;color-scheme:light dark}\n"
    "@media (prefers-color-scheme:dark){:root{--paper:#15181c;--ink:#e6e9ed;--soft:#9aa4b0;"
    "--line:#343b44;--head:#1e2329;--accent:#6ea8f2;--warn:#f0c060;--warn-paper:#2b2413}}\n"
    "*{box-sizing:border-box}\n"
    "body{margin:0 auto;padding:2rem 1.25rem 4rem;max-width:60rem;background:var(--paper);"
    "color:var(--ink);font:16px/1.5 system-ui,'Segoe UI','Helvetica Neue',Arial,sans-serif}\n"
    "h1{font-size:1.7rem;line-height:1.2;margin:0 0 .3rem;overflow-wrap:anywhere}\n"
    "h2{font-size:1.2rem;margin:2.4rem 0 .6rem;padding-bottom:.25rem;"
    "border-bottom:1px solid var(--line)}\n"
    "p{margin:.5rem 0}.lead{color:var(--soft);font-size:1.05rem;margin-bottom:1rem}\n"
    "table{border-collapse:collapse;margin:.8rem 0;font-size:.92rem;"
    "font-variant-numeric:tabular-nums}\n"
    ".wide{overflow-x:auto}caption{text-align:left;color:var(--soft);padding-bottom:.3rem}\n"
    "th,td{padding:.3rem .7rem;text-align:left;vertical-align:top;"
    "border-bottom:1px solid var(--line)}\n"
    "th{background:var(--head);font-weight:600}.n{text-align:right;white-space:nowrap}\n"
    "tr.mark td{font-weight:600;background:var(--head)}\n"
    "figure{margin:1.2rem 0;break-inside:avoid}figcaption{color:var(--soft);font-size:.92rem}\n"
    "figure svg{width:100%;height:auto;max-height:34rem}\n"
    "svg [stroke=black]{stroke:var(--ink)}svg [fill=black]{fill:var(--ink)}"
    "svg [color=black]{color:var(--ink)}svg [stroke=gray]{stroke:var(--line)}"
    "svg [fill=white]{fill:var(--paper)}svg [color=white]{color:var(--paper)}"
    "svg [stroke=white]{stroke:var(--paper)}\n"
    "pre{background:var(--head);border:1px solid var(--line);border-radius:4px;padding:.8rem;"
    "overflow-x:auto;font:.82rem/1.45 ui-monospace,SFMono-Regular,Consolas,monospace}\n"
    ".warn{background:var(--warn-paper);border-left:4px solid var(--warn);padding:.4rem .8rem;"
    "margin:.5rem 0}\n"
    ".warn b{color:var(--warn)}footer{margin-top:3rem;color:var(--soft);font-size:.85rem}\n"
    "@media print{:root{--paper:#fff;--ink:#000;--soft:#444;--line:#bbb;--head:#f2f2f2;"
    "--warn:#704800;--warn-paper:#fff}body{max-width:none;padding:0;font-size:10.5pt}"
    "pre{white-space:pre-wrap;overflow-wrap:anywhere}h2{break-after:avoid}tr{break-inside:avoid}"
    ".wide{overflow:visible}}\n";

/* ---- text ------------------------------------------------------------------------------------ */

/* Bytes of the well-formed UTF-8 character at `s` of at most `n`, 0 where there is none. */
static size_t utf8_length(const unsigned char *s, size_t n)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (s[0] < 0x80)
        return 1;
    size_t length = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4 || length > n)
        return 0;
    uint32_t c = s[0] & (0xffu >> (length + 1));
    for (size_t i = 1; i < length; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (s[i] & 0x3fu);
    }
    return c < least[length] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : length;
}

void html_escape(FILE *out, const char *text, size_t length)
{
    const unsigned char *s = (const unsigned char *)text;
    for (size_t i = 0; i < length;) {
        size_t n = utf8_length(s + i, length - i);
        bool control = n == 1 && (s[i] < 32 || s[i] == 127) && s[i] != '\n' && s[i] != '\t';
        if (n == 0 || control)
            fputs("\xef\xbf\xbd", out); /* the replacement character */
        else if (s[i] == '&')
            fputs("&amp;", out);
        else if (s[i] == '<')
            fputs("&lt;", out);
        else if (s[i] == '>')
            fputs("&gt;", out);
        else if (s[i] == '"')
            fputs("&quot;", out);
        else if (s[i] == '\'')
            fputs("&#39;", out);
        else
            fwrite(s + i, 1, n, out);
        i += n ? n : 1;
    }
}

static void escaped(struct html *h, const char *text)
{
    html_escape(h->out, text, strlen(text));
}

static void escaped_list(struct html *h, const char *format, va_list arguments)
{
    va_list again;
    struct text t = {0};
    char small[256];
    va_copy(again, arguments);
    int n = vsnprintf(small, sizeof small, format, arguments);
    if (n >= 0 && (size_t)n < sizeof small) {
        escaped(h, small);
    } else if (n >= 0) {
        /* Room for the text is made by adding as many bytes. */
        for (int i = 0; i <= n; i++)
            text_addn(&t, " ", 1);
        vsnprintf(t.at, (size_t)n + 1, format, again);
        escaped(h, t.at);
        text_free(&t);
    }
    va_end(again);
}

/* ---- the page -------------------------------------------------------------------------------- */

void html_open(struct html *h, FILE *out, const char *title, const char *lead)
{
    *h = (struct html){.out = out};
    fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>",
          out);
    escaped(h, title);
    fprintf(out, "</title>\n<style>\n%s</style>\n</head>\n<body>\n<h1>", style);
    escaped(h, title);
    fputs("</h1>\n", out);
    if (lead) {
        fputs("<p class=\"lead\">", out);
        escaped(h, lead);
        fputs("</p>\n", out);
    }
}

void html_section(struct html *h, const char *title)
{
    fputs("<h2>", h->out);
    escaped(h, title);
    fputs("</h2>\n", h->out);
}

void html_paragraph(struct html *h, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("<p>", h->out);
    escaped_list(h, format, arguments);
    fputs("</p>\n", h->out);
    va_end(arguments);
}

void html_warning(struct html *h, const char *text)
{
    fputs("<p class=\"warn\"><b>Warning:</b> ", h->out);
    escaped(h, text);
    fputs("</p>\n", h->out);
}

void html_code(struct html *h, const char *text, size_t length)
{
    fputs("<pre>", h->out);
    html_escape(h->out, text, length);
    fputs("</pre>\n", h->out);
}

void html_close(struct html *h, const char *footer)
{
    fputs("<footer>", h->out);
    escaped(h, footer);
    fputs("</footer>\n</body>\n</html>\n", h->out);
}

/* ---- tables ---------------------------------------------------------------------------------- */

static void cells(struct html *h, const char *tag, const char *const *text, int n)
{
    for (int i = 0; i < n; i++) {
        fprintf(h->out, h->numbers >> i & 1 ? "<%s class=\"n\">" : "<%s>", tag);
        escaped(h, text[i] ? text[i] : "");
        fprintf(h->out, "</%s>", tag);
    }
}

void html_table(struct html *h, const char *caption, const char *const *heads, int n,
                unsigned numbers)
{
    h->columns = n;
    h->numbers = numbers;
    fputs("<div class=\"wide\"><table>\n", h->out);
    if (caption) {
        fputs("<caption>", h->out);
        escaped(h, caption);
        fputs("</caption>\n", h->out);
    }
    fputs("<thead><tr>", h->out);
    cells(h, "th", heads, n);
    fputs("</tr></thead>\n<tbody>\n", h->out);
}

void html_row(struct html *h, bool marked, const char *const *text)
{
    fputs(marked ? "<tr class=\"mark\">" : "<tr>", h->out);
    cells(h, "td", text, h->columns);
    fputs("</tr>\n", h->out);
}

void html_table_end(struct html *h)
{
    fputs("</tbody></table></div>\n", h->out);
}

/* ---- pictures -------------------------------------------------------------------------------- */

/* Prolog and doctype belong to a file of its own; gnuplot's title would be shown as a tool tip. */
static void inline_line(struct html *h, const char *line, bool *started)
{
    const char *svg = strstr(line, "<svg");
    *started = *started || svg;
    if (*started && strncmp(line, "<title>", 7) != 0 && strncmp(line, "<desc>", 6) != 0)
        fputs(svg ? svg : line, h->out);
}

bool html_figure(struct html *h, FILE *script, const char *caption, const char **why)
{
    char line[4096];
    FILE *svg = tmpfile();
    bool started = false;
    *why = svg ? NULL : "no temporary file could be made for a picture: is the disk full?";
    bool ok = svg && plot_svg(script, svg, why);
    fputs("<figure>\n", h->out);
    if (ok) {
        rewind(svg);
        while (fgets(line, sizeof line, svg))
            inline_line(h, line, &started);
    } else {
        html_warning(h, *why);
    }
    fputs("<figcaption>", h->out);
    escaped(h, caption);
    fputs("</figcaption>\n</figure>\n", h->out);
    if (svg)
        fclose(svg);
    h->figures++;
    return ok;
}
