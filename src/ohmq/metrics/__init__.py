"""Distortion metrics of 8-bit images: PSNR, SSIM, MS-SSIM, SSIMULACRA2 and PSNR-HVS-M.

All are plain numpy: the values do not depend on the number of threads.
"""

from ohmq.metrics.fidelity import MS_SSIM_MIN_SIDE, SSIM_MIN_SIDE, ms_ssim, psnr_db, psnr_db_batch, ssim
from ohmq.metrics.hvs import PSNR_HVS_M_MIN_SIDE, psnr_hvs_m
from ohmq.metrics.ssimulacra import SSIMULACRA2_MIN_SIDE, Ssimulacra2, ssimulacra2

__all__ = [
    "MS_SSIM_MIN_SIDE",
    "PSNR_HVS_M_MIN_SIDE",
    "SSIMULACRA2_MIN_SIDE",
    "SSIM_MIN_SIDE",
    "Ssimulacra2",
    "ms_ssim",
    "psnr_db",
    "psnr_db_batch",
    "psnr_hvs_m",
    "ssim",
    "ssimulacra2",
]
