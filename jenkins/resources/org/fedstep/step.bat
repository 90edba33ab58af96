@echo off
rem Runs fedstep. Standard output is what it tells, as dotenv and as JSON; all talk goes to standard error. All values
rem come as variables, read as !NAME!: cmd.exe puts those in after it has parsed the line, so nothing in them is a command.
setlocal EnableExtensions EnableDelayedExpansion
if not defined WORKSPACE_TMP set "WORKSPACE_TMP=!WORKSPACE!@tmp"
if not exist "!WORKSPACE_TMP!" mkdir "!WORKSPACE_TMP!"
set "venv=!WORKSPACE_TMP!\fedstep-venv"
set "fedstep="!WITH_COMMAND!""
if not defined WITH_COMMAND (
    call :install 1>&2
    if errorlevel 1 (
        set "code=6"
        set "reason=fedstep could not be installed, for the reason above. It needs Python 3.11 or newer, option python."
        goto give_up
    )
    set "fedstep="!venv!\Scripts\python.exe" -I -m fedstep"
)
if defined WITH_ARCHIVE (
    set "WITH_ARCHIVE=!WITH_ARCHIVE:/=\!"
    set "FEDSTEP_HISTORY=!CD!\.fedstep"
    if exist "!WITH_ARCHIVE!" call :unpack 1>&2
)
set "reports="
for /L %%n in (0,1,99) do if defined WITH_JUNIT_%%n call :report %%n
set "FEDSTEP_DOTENV=!WORKSPACE_TMP!\fedstep-%RANDOM%%RANDOM%.env"
set "FEDSTEP_FINDINGS=!FEDSTEP_DOTENV!.json"
!fedstep! !WITH_SUBCOMMAND!!reports! 1>&2
set "code=!errorlevel!"
if exist "!FEDSTEP_DOTENV!" type "!FEDSTEP_DOTENV!" & del "!FEDSTEP_DOTENV!"
if exist "!FEDSTEP_FINDINGS!" type "!FEDSTEP_FINDINGS!" & del "!FEDSTEP_FINDINGS!"
if defined WITH_ARCHIVE if "!WITH_SUBCOMMAND!"=="train" call :pack 1>&2
if "!code!"=="0" exit /b 0
rem A verdict that the build fails is told by the outputs: fedstepTriage fails the build.
if "!code!"=="1" if "!WITH_SUBCOMMAND!"=="triage" if defined FEDSTEP_FAIL_ON exit /b 0
set "reason=fedstep !WITH_SUBCOMMAND! did not finish, for the reason above."

:give_up
echo WARNING: !reason! 1>&2
echo FEDSTEP_STATUS=degraded
if /i "!FEDSTEP_STRICT!"=="true" exit /b !code!
exit /b 0

:report
set "reports=!reports! --junit "!WITH_JUNIT_%1!""
exit /b 0

:install
set "installed="
if exist "!venv!\installed" set /p installed=<"!venv!\installed"
if "!installed!"=="!WITH_PACKAGE!" exit /b 0
if not defined WITH_PYTHON set "WITH_PYTHON=python"
if not defined PIP_DEFAULT_TIMEOUT set "PIP_DEFAULT_TIMEOUT=15"
if not defined PIP_RETRIES set "PIP_RETRIES=1"
echo Installing !WITH_PACKAGE!
"!WITH_PYTHON!" -I -m venv --clear "!venv!"
if not "!errorlevel!"=="0" exit /b 1
"!venv!\Scripts\python.exe" -I -m pip install --quiet --disable-pip-version-check -- "!WITH_PACKAGE!"
if not "!errorlevel!"=="0" exit /b 1
>"!venv!\installed" echo !WITH_PACKAGE!
exit /b 0

:unpack
set "unpacked=!WORKSPACE_TMP!\fedstep-%RANDOM%%RANDOM%"
mkdir "!unpacked!"
tar -xzf "!WITH_ARCHIVE!" -C "!unpacked!"
if errorlevel 1 (
    echo WARNING: the archived history was left out, for the reason above.
) else if exist "!FEDSTEP_HISTORY!\" (
    !fedstep! history merge "!unpacked!"
) else (
    move "!unpacked!" "!FEDSTEP_HISTORY!"
)
if exist "!unpacked!\" rmdir /s /q "!unpacked!"
exit /b 0

:pack
if not exist fedstep-archive mkdir fedstep-archive
tar -czf "!WITH_ARCHIVE!.new" -C "!FEDSTEP_HISTORY!" .
if errorlevel 1 (
    echo WARNING: the history was not archived, for the reason above.
) else (
    move /y "!WITH_ARCHIVE!.new" "!WITH_ARCHIVE!"
)
exit /b 0
