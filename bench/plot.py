"""A plot of points and the line through them, as SVG, without a library."""

WIDTH, HEIGHT = 720, 480
LEFT, RIGHT, TOP, BOTTOM = 70, 30, 50, 60


def steps(largest):
    """Round numbers from 0, about five, the last beyond the largest."""
    step = next(unit * 10**power for power in range(-6, 12) for unit in (1, 2, 5) if unit * 10**power * 6 > largest)
    count = int(largest / step) + 1
    return [i * step for i in range(count + 1)]


def growth_plot(points, path):
    """Points: (name, millions of multiply-adds, milliseconds). The line is the least squares one."""
    xs, ys = [x for _, x, _ in points], [y for _, _, y in points]
    n, mean_x, mean_y = len(points), sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys)) / spread if n > 1 else 0.0
    start = mean_y - slope * mean_x
    x_steps, y_steps = steps(max(xs)), steps(max(ys))
    across = lambda x: LEFT + x / x_steps[-1] * (WIDTH - LEFT - RIGHT)
    down = lambda y: HEIGHT - BOTTOM - y / y_steps[-1] * (HEIGHT - TOP - BOTTOM)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="28" font-size="15">Time of an image over a CondenseNet\'s multiply-adds: batch 1, one thread</text>',
    ]
    for x in x_steps:
        out.append(f'<path d="M{across(x):.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#ddd"/>')
        out.append(f'<text x="{across(x):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{x:g}</text>')
    for y in y_steps:
        out.append(f'<path d="M{LEFT} {down(y):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        out.append(f'<text x="{LEFT - 8}" y="{down(y) + 4:.1f}" text-anchor="end">{y:g}</text>')
    end = x_steps[-1]
    out.append(f'<path d="M{across(0):.1f} {down(max(start, 0)):.1f}L{across(end):.1f} {down(start + slope * end):.1f}" stroke="#888"/>')
    for name, x, y in points:
        label = name.removeprefix("condensenet-").replace("-imagenet-g", " on ImageNet, C=G=")
        right = across(x) < WIDTH * 0.6
        at, anchor = (across(x) + 9, "start") if right else (across(x) - 9, "end")
        out.append(f'<circle cx="{across(x):.1f}" cy="{down(y):.1f}" r="4" fill="#2a6fb0"/>')
        out.append(f'<text x="{at:.1f}" y="{down(y) + 4:.1f}" text-anchor="{anchor}">{label}</text>')
    label = f"line: {start:.2f} ms + {1e3 * slope:.2f} ms for a thousand million" if n > 1 else ""
    out.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - BOTTOM - 10}" text-anchor="end" fill="#666">{label}</text>')
    out.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 15}" text-anchor="middle">millions of multiply-adds</text>')
    out.append(f'<text transform="translate(20 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">milliseconds</text>')
    with open(path, "w") as file:
        file.write("\n".join([*out, "</svg>", ""]))
