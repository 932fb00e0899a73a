package bench

import (
	"encoding/hex"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// listenerPID finds the process of this machine that listens on addr, by the socket's inode in
// /proc/net/tcp and /proc/net/tcp6 (proc(5)) and the descriptors of all processes. 0: the address
// is another machine's, or the process is one that we may not look into.
func listenerPID(addr string) int {
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil || !ours(tcp.IP) {
		return 0
	}
	var sockets []string
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		table, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		sockets = append(sockets, listeners(string(table), tcp.IP, tcp.Port)...)
	}
	if len(sockets) == 0 {
		return 0
	}
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return 0
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && slices.Contains(sockets, to) {
			pid, err := strconv.Atoi(strings.Split(fd, "/")[2])
			if err == nil {
				return pid
			}
		}
	}
	return 0
}

func ours(ip net.IP) bool {
	if ip.IsLoopback() {
		return true
	}
	addrs, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(addrs, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		return ok && n.IP.Equal(ip)
	})
}

// listeners picks from a table the sockets that listen on ip, or on every address, as their
// descriptors name them.
func listeners(table string, ip net.IP, port int) []string {
	const listen = "0A"
	var out []string
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 10 || f[3] != listen {
			continue
		}
		host, hexPort, _ := strings.Cut(f[1], ":")
		n, err := strconv.ParseUint(hexPort, 16, 16)
		if err != nil || int(n) != port {
			continue
		}
		if at, ok := kernelIP(host); ok && (at.IsUnspecified() || at.Equal(ip)) {
			out = append(out, "socket:["+f[9]+"]")
		}
	}
	return out
}

// kernelIP reads an address as the kernel prints it: words of four bytes, each in the order of the
// machine, of which Go's ports to Linux that matter here are little-endian.
func kernelIP(s string) (net.IP, bool) {
	p, err := hex.DecodeString(s)
	if err != nil || len(p) != net.IPv4len && len(p) != net.IPv6len {
		return nil, false
	}
	for word := range slices.Chunk(p, 4) {
		slices.Reverse(word)
	}
	return p, true
}
