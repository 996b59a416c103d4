# Debian's packages without a change of the system, for scripts that source this file.
#
# They come from Debian's mirror of this machine, in any release. apt checks signatures as usual; its lists are kept in
# the folder $work, which the script makes afterwards and removes. `cannot REASON` of the script ends it with exit
# code 3, and `fail REASON` with 1.

debian_keys=/usr/share/keyrings/debian-archive-keyring.gpg

for debian_program in apt-get dpkg-deb; do
    command -v "$debian_program" > /dev/null || cannot "this machine has no $debian_program"
done

# usage: debian_source SUITE → the line of apt's sources for a release
debian_source() {
    local mirror
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' | head -n 1)
    [ -n "$mirror" ] || cannot "apt has no Debian mirror here"
    [ -r "$debian_keys" ] || cannot "the package debian-archive-keyring is not installed"
    printf 'deb [signed-by=%s] %s %s main\n' "$debian_keys" "$mirror" "$1"
}

# usage: debian_unpack SUITE PACKAGE FOLDER
debian_unpack() {
    local suite=$1 package=$2 folder=$3
    mkdir -p "$work/lists/partial" "$work/parts" "$work/package"
    debian_source "$suite" > "$work/sources.list"
    if [ ! -e "$work/updated-$suite" ]; then
        # Without the option, apt only warns of a mirror that it cannot reach.
        debian_apt -o APT::Update::Error-Mode=any -o Acquire::Retries=3 update > "$work/log" 2>&1 ||
            cannot "Debian's list of packages cannot be read ($(tail -n 1 "$work/log"))"
        touch "$work/updated-$suite"
    fi
    (cd "$work/package" && debian_apt download "$package") >> "$work/log" 2>&1 ||
        fail "Debian's package $package cannot be fetched ($(tail -n 1 "$work/log"))"
    dpkg-deb -x "$work/package/${package}"_*.deb "$folder" || fail "Debian's package $package cannot be unpacked"
}

debian_apt() {
    apt-get -q -o "Dir::Etc::SourceList=$work/sources.list" -o "Dir::Etc::SourceParts=$work/parts" \
        -o "Dir::State::Lists=$work/lists" "$@"
}
