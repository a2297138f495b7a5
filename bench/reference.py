"""The features of stages 2 and 4 written as their formulas read, in double precision: slow, and what the fast ones must equal."""
import numpy as np

from fvc.forensics.maps import plain_maps

TILES, BLOCK = 12, 8
OFFSET = dict(noise=0.05, dct_low=0.3, dct_mid=0.1, dct_high=0.05, fine=0.1, coarse=0.5, broad=1.0)


def means(values: np.ndarray, side: int) -> np.ndarray:
    "Means over whole squares of a side."
    rows, columns = values.shape[0] // side, values.shape[1] // side
    return np.array([[values[i * side:(i + 1) * side, j * side:(j + 1) * side].mean() for j in range(columns)] for i in range(rows)])


def unexplained(values, explained_by):
    "What three rounds of a Huber regression leave."
    design, y, weights = np.stack([np.ones(values.size), *map(np.ravel, explained_by)], 1), values.ravel(), np.ones(values.size)
    for _ in range(3):
        normal = design.T @ np.diag(weights) @ design + 1e-3 * np.eye(design.shape[1])
        left = y - design @ np.linalg.solve(normal, design.T @ (weights * y))
        weights = 1 / np.maximum(1, np.abs(left) / (1.5 * (1.4826 * np.median(np.abs(left)) + 1e-6)))
    return left.reshape(values.shape)


def dispersion(values): return 1.4826 * np.median(np.abs(values - np.median(values)))


def clustering(values):
    z = values - values.mean()
    pairs = [z[i, j] * z[i + 1, j] for i in range(z.shape[0] - 1) for j in range(z.shape[1])]
    pairs += [z[i, j] * z[i, j + 1] for i in range(z.shape[0]) for j in range(z.shape[1] - 1)]
    return np.mean(pairs) / ((z * z).mean() + 1e-4)


def shortfall(values):
    padded = np.pad(values, 1, mode='edge')
    smooth = np.array([[padded[i:i + 3, j:j + 3].mean() for j in range(values.shape[1])] for i in range(values.shape[0])])
    return np.median(smooth) - smooth.min()


def signal(luma: np.ndarray) -> dict:
    "The eleven features of a frame's luma."
    height, width = (side // BLOCK * BLOCK for side in luma.shape)
    maps = plain_maps(luma[:height, :width])
    side = max(1, round(min(maps['mean'].shape) / TILES))
    logs = {name: np.log(means(maps[name], side) + offset) for name, offset in OFFSET.items()}
    level = means(maps['mean'], side) / 128 - 1
    noise = unexplained(logs['noise'], [logs['coarse'], level, level**2])
    mid, high = (unexplained(logs[band], [logs['dct_low']]) for band in ('dct_mid', 'dct_high'))
    blur = unexplained(logs['fine'], [logs['broad'], level])
    return dict(
        noise_level=np.log(np.quantile(maps['noise'], 0.1) + 0.05), noise_correlation=np.median(maps['lag'] / (maps['power'] + 1)),
        noise_dispersion=dispersion(noise), noise_clustering=clustering(noise), noise_shortfall=shortfall(noise),
        dct_high_ratio=np.median(np.log(maps['dct_high'] + 0.05) - np.log(maps['dct_low'] + 0.3)),
        dct_mid_clustering=clustering(mid), dct_high_clustering=clustering(high),
        blur_sharpness=np.median(logs['fine'] - logs['coarse']) / 2, blur_clustering=clustering(blur), boundary_blockiness=blockiness(luma))


def blockiness(luma):
    edge, inside = [], []
    for image in (luma.astype(float), luma.T.astype(float)):
        places = range(8, image.shape[1] - 1, 8)
        edge.append(np.mean([np.abs(image[:, x] - image[:, x - 1]).mean() for x in places]))
        inside.append(np.mean([(np.abs(image[:, x - 1] - image[:, x - 2]).mean() + np.abs(image[:, x + 1] - image[:, x]).mean()) / 2
                               for x in places]))
    return np.log((sum(edge) / 2 + 0.1) / (sum(inside) / 2 + 0.1))


def edges(luma):
    padded, (height, width) = np.pad(luma.astype(int), 3, mode='edge'), luma.shape
    steps = {d: np.maximum(np.abs(padded[3:-3, 3 + d:3 + d + width] - padded[3:-3, 3 - d:3 - d + width]),
                           np.abs(padded[3 + d:3 + d + height, 3:-3] - padded[3 - d:3 - d + height, 3:-3])) for d in (1, 3)}
    around = np.pad(steps[1], 2)
    fine = np.max([around[i:i + height, j:j + width] for i in range(5) for j in range(5)], axis=0)
    least = next(level for level in range(256) if (steps[3] <= level).sum() > 0.95 * luma.size)
    strong = steps[3] >= least
    return np.log((fine[strong].mean() / 2 + 0.1) / (steps[3][strong].mean() / 2 + 0.1))


def texture(luma):
    counts = np.zeros((16, 16))
    np.add.at(counts, (luma[:, 1:] // 16, luma[:, :-1] // 16), 1)
    return ((counts / counts.sum())**2).sum()


def visibility(luma):
    hits = []
    for image in (luma.astype(int), luma.T.astype(int)):
        for x in range(8, image.shape[1] - 1, 8):
            before, last, first, after = (image[:, x + d] for d in (-2, -1, 0, 1))
            level = (first + last) // 2
            needed = np.where(level <= 127, 17 * (1 - np.sqrt(level / 127)) + 3, 3 * (level - 127) / 128 + 3)
            hits += list(np.abs(first - last) > needed + np.maximum(np.abs(last - before), np.abs(after - first)))
    return np.mean(hits)


def colour(luma, cb, cr):
    rows, columns = cb.shape
    grey = np.floor((luma[:rows * 2, :columns * 2].reshape(rows, 2, columns, 2).astype(int).sum((1, 3)) + 2) / 4)
    side = max(1, round(min(cb.shape) / TILES))

    def differences(plane):
        padded = np.pad(plane.astype(float), 1, mode='reflect')
        return padded[1:-1, 2:] - padded[1:-1, :-2], padded[2:, 1:-1] - padded[:-2, 1:-1]

    def residual(plane):
        padded = np.pad(plane.astype(float), 1, mode='reflect')
        across = padded[:, 2:] - 2 * padded[:, 1:-1] + padded[:, :-2]
        return across[2:] - 2 * across[1:-1] + across[:-2]

    dx, dy = differences(grey)
    strength = means(dx**2 + dy**2, side) + 64
    slopes = [dispersion(means(cx * dx + cy * dy, side) / strength) for cx, cy in map(differences, (cb, cr))]
    structure = sum(means(np.abs(cx) + np.abs(cy), side) for cx, cy in map(differences, (cb, cr)))
    noise, level = sum(means(np.abs(residual(plane)), side) for plane in (cb, cr)), means(grey, side) / 128 - 1
    left = unexplained(np.log(noise + 0.05), [np.log(structure + 0.3), level, level**2])
    return dict(colour_illuminant=np.mean(slopes), colour_clustering=clustering(left))


def between(lumas: list, chromas: list) -> dict:
    "The two features that compare frames; thumbnails are means over equal rectangles, so sides must be multiples of theirs."
    height, width = lumas[0].shape
    tall, wide = max(2, round(height * 64 / max(height, width))), max(2, round(width * 64 / max(height, width)))
    if height % tall or width % wide: raise ValueError(f'the plain thumbnail of {width}x{height} is not defined: sides must be multiples')
    small = [np.rint(luma.reshape(tall, height // tall, wide, width // wide).astype(float).mean((1, 3))) for luma in lumas]
    changes = [np.log((np.abs(a - b).mean() + 0.5) / (np.abs(np.diff(a, axis=0)).mean() + np.abs(np.diff(a, axis=1)).mean() + 0.5))
               for a, b in zip(small, small[1:])]
    middle = np.array([[plane.mean() for plane in pair] for pair in chromas])
    inner = np.mean([plane.std() for pair in chromas for plane in pair])
    steps = [np.hypot(*(b - a)) for a, b in zip(middle, middle[1:])]
    return dict(boundary_cut=max(changes) - np.median(changes) if changes else 0.0, colour_drift=np.log1p(max(steps, default=0) / (1 + inner)))


def reference_features(images: list) -> dict:
    "All eighteen signal features of stage 4, from I420 frames without border bars."
    frames = []
    for image in images:
        height, width = image.shape[0] * 2 // 3, image.shape[1]
        luma = np.clip(np.rint((image[:height].astype(float) - 16) * 255 / 219), 0, 255).astype(np.uint8)
        frames.append((luma, *image[height:].reshape(2, height // 2, width // 2)))
    each = [signal(luma) | dict(edge_preservation=edges(luma), texture_uniformity=texture(luma), compression_visibility=visibility(luma))
            | colour(luma, cb, cr) for luma, cb, cr in frames]
    mean = {name: float(np.mean([one[name] for one in each])) for name in each[0]}
    return mean | {k: float(v) for k, v in between([f[0] for f in frames], [f[1:] for f in frames]).items()}
