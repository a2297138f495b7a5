"""Picking frames with torchcodec and decord2, with the same indices as fvc and one decoder thread."""
import sys

CHOICE = {}


def uniform(total: int, n: int) -> list[int]:
    "The indices that fvc.video.frames.uniform_sample_indices gives."
    return [(total - 1) // 2] if n == 1 else [(i * (total - 1) * 2 + n - 1) // (2 * (n - 1)) for i in range(n)]


def prepare(library: str):
    if library == 'decord':
        import decord
        CHOICE['pick'] = lambda path, n: by_decord(decord, path, n)
    else:
        import torch
        from torchcodec.decoders import VideoDecoder
        torch.set_num_threads(1)
        mode = 'exact' if library == 'torchcodec' else 'approximate'
        CHOICE['pick'] = lambda path, n: by_torchcodec(VideoDecoder, mode, path, n)


def by_decord(decord, path, n):
    reader = decord.VideoReader(path, num_threads=1)
    indices = uniform(len(reader), n)
    return reader.get_batch(indices).asnumpy(), reader.get_frame_timestamp(indices)[:, 0]


def by_torchcodec(decoder, mode, path, n):
    video = decoder(path, dimension_order='NHWC', num_ffmpeg_threads=1, seek_mode=mode)
    batch = video.get_frames_at(uniform(len(video), n))
    return batch.data.numpy(), batch.pts_seconds.numpy()


def pick(path: str, n: int) -> dict:
    "Pick n frames as RGB arrays; what was got, or why nothing."
    try: images, times = CHOICE['pick'](path, n)
    except Exception as error:  # any library's own kind: it is reported, and the clip does not count for it
        return dict(error=f'{type(error).__name__}: {str(error).splitlines()[0][:80] if str(error) else ""}')
    return dict(shape=list(images.shape), times=[round(float(t), 4) for t in times])


if __name__ == '__main__': sys.exit('started by serve.py')
