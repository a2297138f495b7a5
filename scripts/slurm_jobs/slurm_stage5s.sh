#!/bin/bash
# Stage 5, slowfast_attention: five folds, one task each; other numbers with --array.
# Run from the project's folder, with the environment of fvc active: sbatch scripts/slurm_jobs/slurm_stage5s.sh
# Made by "fvc submit scripts": change the site's settings after sbatch, e.g. --partition=a100, or in the profile of "fvc submit".
#SBATCH --job-name=fvc_stage5s
#SBATCH --partition=gpu
#SBATCH --array=1-5
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --time=20:00:00
#SBATCH --gres=gpu:1
#SBATCH --signal=B:USR1@120
#SBATCH --output=logs/stage5/stage5s-%j.out
#SBATCH --error=logs/stage5/stage5s-%j.err
#SBATCH --open-mode=append
#SBATCH --export=PATH,HOME,USER,LANG,LC_ALL,LD_LIBRARY_PATH,PYTHONPATH,VIRTUAL_ENV,TMPDIR,SLURM_CONF,OMP_NUM_THREADS,MLFLOW_TRACKING_URI,FVC_USE,FVC_WEIGHTS,FVC_DEBUG,FVC_NUM_FRAMES,FVC_N_SPLITS,FVC_USE_TRACKING,FVC_STAGE2_OUTPUT_DIR,FVC_STAGE3_OUTPUT_DIR,FVC_STAGE4_OUTPUT_DIR,FVC_STAGE5_OUTPUT_DIR,FVC_DATA
#SBATCH --requeue
exec fvc task slowfast_attention "$SLURM_ARRAY_TASK_ID" --part stage5s --gpus 1 -- train slowfast_attention --folds "$SLURM_ARRAY_TASK_ID" --workers 1
