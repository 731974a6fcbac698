# The commands of the documentation as they are in a test: the same programs, on free ports, and strict about errors.

python() { "$PYTHON" "$@"; }

# Without this curl is content with an error of the server, and draws a progress bar.
curl() { command curl --silent --show-error --fail-with-body "$@"; }

# A server listens where there is room, and stops once it has said that it listens.
export ROOMKEY_SERVER_PORT=0
roomkey() {
    if [ "$1" != serve ]; then
        "$PYTHON" -m roomkey "$@"
        return
    fi
    local said fifo=listening.$RANDOM
    mkfifo "$fifo"
    "$PYTHON" -m roomkey "$@" >"$fifo" &
    exec 9<"$fifo"
    rm "$fifo"
    read -r said <&9 && echo "$said"
    kill $! 2>/dev/null
    wait $!
    local code=$?
    exec 9<&-
    return $code
}
