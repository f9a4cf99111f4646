# Made from _HOME in __init__.py; not for editing: `make generate` renews it.

from curator_image.aesthetic import AestheticFilter as AestheticFilter
from curator_image.batch import ImageBatch as ImageBatch
from curator_image.caption_score import CaptionScoreFilter as CaptionScoreFilter
from curator_image.convert import CaptionToText as CaptionToText
from curator_image.convert import ImageDuplicateRemoval as ImageDuplicateRemoval
from curator_image.convert import ImagesToDocuments as ImagesToDocuments
from curator_image.decode.picture import Picture as Picture
from curator_image.decode.pictures import decode_batch as decode_batch
from curator_image.decode.pixel_hash import PixelHash as PixelHash
from curator_image.decode.probe import BadImage as BadImage
from curator_image.decode.probe import probe as probe
from curator_image.decode.stage import ImageDecode as ImageDecode
from curator_image.download.stage import ImageDownload as ImageDownload
from curator_image.download.stage import ImageFetch as ImageFetch
from curator_image.download.urls import UrlListRead as UrlListRead
from curator_image.embedding import ImageEmbedding as ImageEmbedding
from curator_image.measures.caption import CaptionDuplicateFilter as CaptionDuplicateFilter
from curator_image.measures.caption import CaptionLengthFilter as CaptionLengthFilter
from curator_image.measures.header import AspectRatioFilter as AspectRatioFilter
from curator_image.measures.header import BytesPerPixelFilter as BytesPerPixelFilter
from curator_image.measures.header import FormatFilter as FormatFilter
from curator_image.measures.header import ResolutionFilter as ResolutionFilter
from curator_image.measures.pixels import BlurFilter as BlurFilter
from curator_image.measures.pixels import BorderFilter as BorderFilter
from curator_image.measures.pixels import BrightnessFilter as BrightnessFilter
from curator_image.measures.pixels import ColorfulnessFilter as ColorfulnessFilter
from curator_image.measures.pixels import ContrastFilter as ContrastFilter
from curator_image.measures.pixels import EntropyFilter as EntropyFilter
from curator_image.measures.pixels import UniformFilter as UniformFilter
from curator_image.nsfw import NSFWFilter as NSFWFilter
from curator_image.reader import ImageReader as ImageReader
from curator_image.reading.read import ImageRead as ImageRead
from curator_image.thumbnail import Thumbnail as Thumbnail
from curator_image.thumbnail import jpeg_thumbnail as jpeg_thumbnail
from curator_image.writer import ImageWriter as ImageWriter

__all__ = [
    "AestheticFilter",
    "AspectRatioFilter",
    "BadImage",
    "BlurFilter",
    "BorderFilter",
    "BrightnessFilter",
    "BytesPerPixelFilter",
    "CaptionDuplicateFilter",
    "CaptionLengthFilter",
    "CaptionScoreFilter",
    "CaptionToText",
    "ColorfulnessFilter",
    "ContrastFilter",
    "EntropyFilter",
    "FormatFilter",
    "ImageBatch",
    "ImageDecode",
    "ImageDownload",
    "ImageDuplicateRemoval",
    "ImageEmbedding",
    "ImageFetch",
    "ImageRead",
    "ImageReader",
    "ImageWriter",
    "ImagesToDocuments",
    "NSFWFilter",
    "Picture",
    "PixelHash",
    "ResolutionFilter",
    "Thumbnail",
    "UniformFilter",
    "UrlListRead",
    "decode_batch",
    "jpeg_thumbnail",
    "probe",
]

__version__: str
