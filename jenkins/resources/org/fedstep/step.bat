@echo off
rem Runs fedstep; standard output is its dotenv file alone, all talk goes to standard error. All values come as variables,
rem read as !NAME!: cmd.exe puts those in after it has parsed the line, so nothing in them is a command.
setlocal EnableExtensions EnableDelayedExpansion
if not defined WORKSPACE_TMP set "WORKSPACE_TMP=!WORKSPACE!@tmp"
if not exist "!WORKSPACE_TMP!" mkdir "!WORKSPACE_TMP!"
set "venv=!WORKSPACE_TMP!\fedstep-venv"
set "fedstep="!WITH_COMMAND!""
if not defined WITH_COMMAND (
    call :install 1>&2
    if errorlevel 1 (
        set "code=6"
        set "reason=fedstep could not be installed, for the reason above."
        goto give_up
    )
    set "fedstep="!venv!\Scripts\python.exe" -I -m fedstep"
)
set "reports="
for /L %%n in (0,1,99) do if defined WITH_JUNIT_%%n set "reports=!reports! --junit "!WITH_JUNIT_%%n!""
set "FEDSTEP_DOTENV=!WORKSPACE_TMP!\fedstep-%RANDOM%%RANDOM%.env"
!fedstep! !WITH_SUBCOMMAND!!reports! 1>&2
set "code=!errorlevel!"
if exist "!FEDSTEP_DOTENV!" type "!FEDSTEP_DOTENV!" & del "!FEDSTEP_DOTENV!"
if "!code!"=="0" exit /b 0
set "reason=fedstep !WITH_SUBCOMMAND! did not finish, for the reason above."

:give_up
echo WARNING: !reason! 1>&2
echo FEDSTEP_STATUS=degraded
if /i "!FEDSTEP_STRICT!"=="true" exit /b !code!
exit /b 0

:install
set "installed="
if exist "!venv!\installed" set /p installed=<"!venv!\installed"
if "!installed!"=="!WITH_PACKAGE!" exit /b 0
if not defined WITH_PYTHON set "WITH_PYTHON=python"
echo Installing !WITH_PACKAGE!
"!WITH_PYTHON!" -I -m venv --clear "!venv!" || exit /b 1
"!venv!\Scripts\python.exe" -I -m pip install --quiet --disable-pip-version-check -- "!WITH_PACKAGE!" || exit /b 1
>"!venv!\installed" echo !WITH_PACKAGE!
exit /b 0
