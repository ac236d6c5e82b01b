-- gin-chat-demo's table as its ORM creates it (gorm.Model and six columns), but with ids of 64 bits, as its program has
-- them.
CREATE TABLE `user` (
  `id` bigint unsigned NOT NULL AUTO_INCREMENT,
  `created_at` datetime NULL,
  `updated_at` datetime NULL,
  `deleted_at` datetime NULL,
  `user_name` varchar(255) NULL,
  `password_digest` varchar(255) NULL,
  `email` varchar(255) NULL,
  `avatar` varchar(1000) NULL,
  `phone` varchar(255) NULL,
  `status` varchar(255) NULL,
  PRIMARY KEY (`id`),
  KEY `idx_user_deleted_at` (`deleted_at`)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4
