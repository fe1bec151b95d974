// Never built: CMake wants a source for the target whose link line it tells.
int main() {}
