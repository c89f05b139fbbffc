# What a machine needs at least until its redis answers: the first program of the bare machine that `make bench-boot` boots.
# It lies in the image of the node, where nothing else uses it, so that both unpack the same bytes.
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
modprobe -a virtio_pci virtio_rng virtio_net af_packet
ip link set lo up
ip link set eth0 up
cat > /tmp/lease <<'LEASE'
#!/usr/bin/busybox sh
[ "$1" = bound ] || exit 0
ip addr add "$ip/$mask" dev "$interface"
ip route add default via "$router"
LEASE
chmod 755 /tmp/lease
udhcpc -i eth0 -n -q -s /tmp/lease
exec redis-server --bind 0.0.0.0 --protected-mode no --save '' --dir /tmp
