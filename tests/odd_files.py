"""What the unusual and the damaged clips are, as an independent tool shows them.

The expected values were made with Debian's ffmpeg 5.1.9, which neither the library nor this test uses, one line a file:

    ffmpeg -i FILE -map 0:v:0 -vf "scale=w='round(iw*max(sar,1))':h='round(ih/min(sar,1))'" -fps_mode passthrough -f null -
        frames, and their size with the rotation applied and the pixels made square
    ffmpeg ... -vf "scale=out_range=full,format=gray,signalstats,metadata=print:key=lavfi.signalstats.YAVG:file=-" ...
        luma from 0 to 255, mean of all frames
    ffmpeg ... -vf "yadif=deint=interlaced,scale=flags=accurate_rnd+full_chroma_int+bilinear,format=rgb24" -f rawvideo -
        red, green and blue, mean of all frames (the GIF that is transparent: over black, by the filter overlay)
"""

# file | frames (0: refused) | width x height as displayed | luma | red green blue
ODD = '''
-video-with-dash-.mp4 | 5 | 1x1 | 102.0 | 
decord__unordered.mov | 4 | 50x50 | 255.0 | 255.0 255.0 255.0
decord__video_180.mov | 3 | 568x320 | 113.4 | 124.0 111.5 101.4
decord__video_270.mov | 3 | 320x568 | 123.8 | 135.0 121.8 111.4
decord__video_90.mov | 3 | 320x568 | 97.0 | 105.7 95.4 86.9
derived_16x16.mp4 | 30 | 28x16 | 118.7 | 90.2 129.9 137.0
derived_cover_art.m4a | 1 | 455x256 | 117.3 | 92.0 127.6 133.1
derived_interlaced_tff.ts | 16 | 455x256 | 117.7 | 86.8 130.4 135.2
derived_jpeg_named.mp4 | 1 | 455x256 | 117.3 | 92.0 127.6 133.1
derived_matroska_named.mp4 | 32 | 455x256 | 117.6 | 87.1 130.3 135.4
derived_one_frame.mp4 | 1 | 455x256 | 117.3 | 91.9 127.4 133.3
derived_tall_9x16.mp4 | 33 | 267x360 | 115.9 | 71.3 133.7 146.1
derived_two_video_streams.mkv | 30 | 455x256 | 118.3 | 88.4 130.6 135.7
ffmpeg-python__in.mp4 | 209 | 320x240 | 118.3 | 118.3 118.3 118.3
imageio__imageio_issue245.gif | 1 | 30x24 | 69.1 | 55.0 74.2 80.6
mmcv__palette.gif | 1 | 400x300 | 90.5 | 107.5 86.8 66.7
moviepy__big_buck_bunny_432_433.webm | 24 | 1280x720 | 80.1 | 89.3 82.1 46.3
moviepy__example_mask.mp4 | 300 | 200x200 | 8.9 | 8.9 8.9 8.9
moviepy__no_duration.webm | 74 | 1280x720 | 5.8 | 2.4 6.8 5.1
moviepy__smpte-2997.mp4 | 251 | 1920x1080 | 69.1 | 68.8 68.7 75.2
moviepy__test_video_1687bytes.mp4 | 5 | 1x1 | 102.0 | 
moviepy__transparent.webm | 150 | 200x200 | 0.4 | 1.6 0.0 0.1
mp4parser__MOV00006.3gp | 222 | 192x144 | 205.5 | 197.7 207.6 206.9
mp4parser__count-english-audio.mp4 | 0 | - |  | 
mp4parser__multiTrack.3gp | 1050 | 176x144 | 241.2 | 234.6 243.1 247.6
nom avec espaces é 視頻 (1).mp4 | 30 | 28x16 | 118.7 | 90.2 129.9 137.0
torchcodec__av1_video.mkv | 125 | 640x360 | 125.8 | 121.8 127.1 126.9
torchcodec__bt2020_10bit.mp4 | 60 | 320x240 | 123.8 | 122.2 124.2 127.1
torchcodec__discard_first_keyframe.mp4 | 25 | 64x64 | 78.9 | 89.3 75.1 77.8
torchcodec__h265_10bits.mp4 | 30 | 200x200 | 118.7 | 116.6 118.4 127.5
torchcodec__nasa_13013_hdr.mp4 | 325 | 320x180 | 27.0 | 30.4 25.6 27.7
torchcodec__nasa_13013_rotated.mp4 | 17 | 270x480 | 9.5 | 9.5 9.1 14.9
torchcodec__sine_stereo_mp2.mpg | 100 | 128x128 | 125.7 | 126.9 125.0 126.2
torchcodec__test_non_zero_start.mp4 | 12 | 200x113 | 94.5 | 74.0 109.9 68.6
torchcodec__testsrc2_12bit_hdr.mp4 | 60 | 320x180 | 123.0 | 121.9 123.1 127.8
torchcodec__testsrc2_odd_height_444.mp4 | 25 | 320x241 | 125.1 | 122.4 126.0 127.2
torchcodec__testsrc2_odd_height_and_width_444.mp4 | 25 | 321x241 | 125.2 | 123.4 125.8 126.7
torchcodec__testsrc2_odd_height_and_width_mpeg2.mp4 | 10 | 121x81 | 97.5 | 102.5 95.5 99.4
torchcodec__var_fps_video.mp4 | 300 | 128x128 | 125.7 | 127.0 125.0 126.3
'''
REFUSED = {'derived_cover_art.m4a': 'only audio (its picture is cover art)', 'mp4parser__count-english-audio.mp4': 'only audio'}
UNCOUNTED = ('torchcodec__av1_video.mkv', *REFUSED)  # OpenCV has no AV1 decoder, and takes cover art for a video

# file: what its reason must say; what is sound of it, in frames (0: nothing)
BROKEN = {
    'decord__corrupted.mp4': ('the decoder says', 28), 'deepfake-dataset-generation__fake_001.mp4': ('no moov atom', 0),
    'derived_bitflips.mp4': ('frame 6 is corrupt', 6), 'derived_empty.mp4': ('is empty', 0),
    'derived_html_page.mp4': ('is an HTML page', 0), 'derived_truncated.mkv': ('79,162 bytes are missing', 15),
    'derived_truncated.webm': ('833,605 bytes are missing', 24), 'derived_truncated_faststart.mp4': ('63,441 bytes are missing', 17),
    'derived_truncated_no_moov.mp4': ('62,237 bytes short', 0), 'derived_zeroed_quarter.mp4': ('the decoder says', 14),
    'git_lfs_pointer.mp4': ('git-lfs pointer', 0), 'mmtracking__._mot.mp4': ('AppleDouble', 0),
    'moviepy__video_with_failing_audio.mp4': (None, 280),  # the picture is whole: ffmpeg, too, shows all its 280 frames
    'veri-ai__jimmy_116bytes.webm': ('is a text file', 0)}


def table():
    "name -> (frames, width, height, luma, (red, green, blue) or None)"
    for line in ODD.strip().splitlines():
        name, frames, size, luma, rgb = (part.strip() for part in line.split('|'))
        if name in REFUSED: yield name, None
        else: yield name, (int(frames), *map(int, size.split('x')), float(luma), [float(v) for v in rgb.split()] or None)


EXPECTED = dict(table())
VIDEOS = [name for name in EXPECTED if name not in REFUSED]
