@echo off
setlocal
rem Train HRNet at 768x768 on an 8 GB RTX 3070 Ti with the plan of the shipped profile, which one trial on the card
rem proves first. Options given to this script are added and win: train_768x768_rtx3070ti.bat --epochs 100
rem A step takes 6 images, at once where nothing else is on the card: they are predicted to take 7.7 of 7.78 GiB at most.
rem With a desktop there (some 0.6 GiB) 5 fit; the trial tells, and a step takes its 6 in two micro-batches of 3.
rem It works from the folder above its own, with the environment .venv or venv there, and the film set Aariz there.
cd /d "%~dp0.."
if exist ".venv\Scripts\activate.bat" call ".venv\Scripts\activate.bat"
if not defined VIRTUAL_ENV if exist "venv\Scripts\activate.bat" call "venv\Scripts\activate.bat"
set PYTHONUTF8=1
where vramfit >nul 2>nul
if errorlevel 1 (
  echo vramfit is not installed here: run "pip install -e ." in %CD%, in its environment.
  pause
  exit /b 1
)
vramfit train --profile rtx3070ti-768 --dataset_path Aariz --model hrnet --image_size 768 768 --batch_size 6 ^
  --epochs 200 --lr 3e-4 --warmup_epochs 10 --loss adaptive_wing --mixed_precision --num_workers 2 ^
  --save_dir checkpoints_768x768 --log_dir logs_768x768 %*
set code=%errorlevel%
rem A window opened by a double click would close before the message is read.
pause
exit /b %code%
